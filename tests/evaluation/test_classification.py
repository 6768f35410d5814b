"""The confusions that a report tells, and the files of guesses."""

import csv

import torch

from detection.evaluation.classification import class_rows, confused_pairs
from detection.metrics.top_k import TopKErrors
from detection.report.result_files import write_guesses

NAMES = ["cat", "dog", "fish"]
LABELS = [0, 0, 0, 1, 1, 2]
GUESSES = [0, 1, 1, 1, 2, 2]  # two cats are taken for dogs, a dog for a fish


def guessed():
    metric = TopKErrors(3)
    scores = torch.nn.functional.one_hot(torch.tensor(GUESSES), 3).float()
    scores[:, 0] += 0.25  # the second guess is a cat, of a cat a dog
    metric.update(
        [{"scores": row} for row in scores], [{"label": torch.tensor(n)} for n in LABELS], range(6)
    )
    table = metric.table()
    return table, metric.confusion(table)


def test_confusions():
    _, confusion = guessed()
    assert confusion.tolist() == [[1, 2, 0], [0, 1, 1], [0, 0, 1]]
    assert confused_pairs(confusion, NAMES) == [
        ("cat", "dog", 2),
        ("dog", "fish", 1),
    ]
    rows = class_rows(confusion, NAMES)
    assert [(name, images) for name, _, images in rows] == [("cat", 3), ("dog", 2), ("fish", 1)]
    assert [round(error, 3) for _, error, _ in rows] == [0.667, 0.5, 0.0]


def test_guesses_can_be_read_by_others(tmp_path):
    table, confusion = guessed()
    images = [f"{n}.jpg" for n in range(6)]
    write_guesses(tmp_path, table, confusion, images, NAMES)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == images
    assert [row["class"] for row in rows] == [NAMES[label] for label in LABELS]
    assert [row["guess_1"] for row in rows] == [NAMES[guess] for guess in GUESSES]
    assert (rows[1]["score_1"], rows[1]["guess_2"], rows[1]["score_2"]) == ("1.0", "cat", "0.25")
    with (tmp_path / "confusion.csv").open(newline="") as file:
        heading, *lines = csv.reader(file)
    assert heading[1:] == NAMES
    assert [[int(n) for n in line[1:]] for line in lines] == confusion.tolist()
    assert [line[0] for line in lines] == NAMES
