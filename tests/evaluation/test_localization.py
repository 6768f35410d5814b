"""What a localiser's report tells of its errors."""

from functools import partial

import pytest
import torch
from conftest import FakeVOC

from detection.data.classification import ClassificationAnnotations
from detection.data.module import DataModule
from detection.data.voc.annotation import VOCObject
from detection.data.voc.localization import VOCLocalization
from detection.evaluation.localization import LocalizationEvaluator
from detection.report.result_files import LocalizationPredictions

FAR = (50.0, 30.0, 59.0, 39.0)
NAMES = ["bird", "cat", "dog"]


@pytest.fixture
def data(tmp_path):
    """Four test images of 60×40 pixels: a small, a large, two objects, a dog."""
    voc = FakeVOC(tmp_path / "voc")
    boxes = {
        "bird0": [(0, 0, 12, 10)], "bird1": [(0, 0, 50, 40)],
        "cat0": [(0, 0, 20, 20), (30, 0, 50, 20)], "dog0": [(0, 0, 30, 30)],
    }  # fmt: skip
    for name, some in boxes.items():
        voc.add(name, [VOCObject(name[:-1], box) for box in some])
    voc.lists(train=list(boxes), test=list(boxes))
    made = DataModule(
        name="x", task="localization", layout=partial(VOCLocalization), root=str(voc.root),
        annotations=ClassificationAnnotations(), cache=tmp_path / "cache", val_images=0,
    )  # fmt: skip
    made.setup()
    return made


@pytest.fixture
def result(data):
    """Right; of a wrong class; a wrong box; the second guess right."""
    evaluator = LocalizationEvaluator(top_k=2)
    metric = evaluator.metric(3)
    test = data.split("test")
    guesses = {
        "bird0": ([0, 1], [(0, 0, 12, 10), FAR]),
        "bird1": ([1, 2], [(0, 0, 50, 40), FAR]),
        "cat0": ([1, 0], [FAR, FAR]),
        "dog0": ([0, 2], [FAR, (0, 0, 30, 28)]),
    }
    for number in range(4):
        labels, boxes = guesses[test.image_id(number).split("/")[1][:-4]]
        target = test.target(number)
        true = boxes[labels.index(int(target["label"]))] if int(target["label"]) in labels else FAR
        prediction = {
            "labels": torch.tensor(labels), "boxes": torch.tensor(boxes, dtype=torch.float32),
            "scores": torch.tensor([0.7, 0.2]), "true_box": torch.tensor(true, dtype=torch.float32),
        }  # fmt: skip
        metric.update([prediction], [target], [number])
    return evaluator.result(metric, data)


def test_figures_and_their_intervals(result):
    figures = result.figures
    assert figures["loc_error_top2"] == 0.5
    assert figures["loc_error_top1"] == 0.75
    assert figures["loc_error_true_class"] == 0.5
    assert figures["top1_error"] == 0.5
    assert figures["loc_accuracy_top2"] == 0.5
    assert figures["interval/loc_error_top1_low"] < 0.75 < figures["interval/loc_error_top1_high"]
    assert "top2_error" in figures
    assert "| " in result.table.text({f"test/{k}": v for k, v in figures.items()}).replace("│", "|")


def test_what_the_errors_come_from(result):
    sources, sizes, counts, classes, gallery = result.page.sections
    assert [tuple(row) for row in sources.rows] == [
        ("first", "25.0", "50.0", "25.0"), ("first 2", "50.0", "25.0", "25.0"),
    ]  # fmt: skip
    # 120, 2000, 400 and 900 of 2400 pixels; wrong on the true class: the large one and the cats
    assert [tuple(row) for row in sizes.rows] == [
        ("under 10%", "0.0", 1), ("10% to 25%", "100.0", 1), ("25% to 50%", "0.0", 1),
        ("over 75%", "100.0", 1),
    ]  # fmt: skip
    assert [tuple(row) for row in counts.rows] == [("1 object", "33.3", 3), ("2", "100.0", 1)]
    assert {row[0]: row[1] for row in classes.rows} == {"bird": 0.5, "cat": 1.0, "dog": 1.0}
    assert gallery.groups["best"][0].caption == "bird: IoU 1.00"
    assert {p.caption for p in gallery.groups["worst"]} >= {"dog: taken for bird"}


def test_of_few_classes_there_is_no_error_of_many_guesses(data):
    evaluator = LocalizationEvaluator()
    metric = evaluator.metric(3)
    assert metric.top_k == 3
    box = torch.zeros(1, 4)
    metric.update([{"labels": torch.tensor([0]), "boxes": box}], [data.split("test").target(0)])
    assert "top5_error" not in evaluator.figures(metric, NAMES)


def test_predictions_round_trip(result, tmp_path):
    result.predictions.save(tmp_path)
    again = LocalizationPredictions.load(tmp_path)
    assert again.class_names == NAMES
    for name, value in result.predictions.table.items():
        assert torch.equal(again.table[name], value), name
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert len(lines) == 1 + 4 * 2
    assert lines[1].split(",")[1:4] == ["bird", "bird", "0.699999988079071"]
