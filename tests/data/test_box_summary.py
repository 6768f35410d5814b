"""How many boxes of each class there are, and how large."""

import torch

from detection.data.box_summary import MOST_CLASSES, box_summary


def cells(text, name):
    row = next(line for line in text.splitlines() if f" {name} " in line)
    return [cell.strip() for cell in row.strip("│").split("│")][1:]


def test_counts_and_sides_by_hand():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 20, 20], [0, 0, 30, 30], [0, 0, 9, 4]])
    train, test = (boxes, torch.tensor([0, 0, 0, 1])), (boxes[:1], torch.tensor([2]))
    text = box_summary({"train": train, "test": test}, ["cat", "dog", "emu"])
    assert cells(text, "cat") == ["3", "0", "12", "20", "28"]
    assert cells(text, "dog") == ["1", "0", "6", "6", "6"]
    assert cells(text, "emu") == ["0", "1", "-", "-", "-"]
    assert cells(text, "all")[:2] == ["4", "1"]


def test_of_many_classes_the_rarest_are_shown():
    labels = torch.arange(50).repeat_interleave(torch.arange(50))
    boxes = torch.tensor([[0.0, 0, 5, 5]]).expand(len(labels), -1)
    names = [f"class{n:02d}" for n in range(50)]
    text = box_summary({"train": (boxes, labels)}, names)
    assert text.count("class") - text.count("classes") - text.count("each class") == MOST_CLASSES
    assert "class00" in text
    assert "class49" not in text
