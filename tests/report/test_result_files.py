"""Predictions that are saved are read back as they were."""

import pytest
import torch

from detection.errors import UserError
from detection.report.result_files import (
    DetectionPredictions,
    GuessPredictions,
    ScorePredictions,
    read_arrays,
)


def test_detections_round_trip(tmp_path):
    found = torch.tensor([[0, 1, 0.123456789012345, 1.5, 2, 3, 4]], dtype=torch.double)
    gt = torch.tensor([[1, 0, 1, 0, 0, 9, 9]], dtype=torch.double)
    DetectionPredictions(found, gt, ["a", "b"], ["cat", "dog"]).save(tmp_path)
    again = DetectionPredictions.load(tmp_path)
    assert torch.equal(again.detections, found)
    assert torch.equal(again.gt, gt)
    assert (again.image_ids, again.class_names) == (["a", "b"], ["cat", "dog"])
    line = (tmp_path / "detections" / "comp4_det_test_dog.txt").read_text()
    assert line == "a 0.123456789012345 2.5 3.0 3.0 4.0\n"


def test_a_run_without_predictions_says_so(tmp_path):
    with pytest.raises(UserError, match=r"predictions\.npz is missing"):
        read_arrays(tmp_path / "predictions.npz")


def test_guesses_and_scores_round_trip(tmp_path):
    table = {"image_ids": torch.tensor([0, 1]), "labels": torch.tensor([1, 0]),
             "guesses": torch.tensor([[1, 0], [1, 0]]),
             "scores": torch.tensor([[0.9, 0.1], [0.7, 0.3]])}  # fmt: skip
    confusion = torch.tensor([[0, 1], [0, 1]])
    GuessPredictions(table, confusion, ["a", "b"], ["cat", "dog"]).save(tmp_path)
    guesses = GuessPredictions.load(tmp_path)
    assert guesses.table.keys() == table.keys()
    assert all(torch.equal(guesses.table[name], table[name]) for name in table)
    assert torch.equal(guesses.confusion, confusion)
    assert (guesses.images, guesses.class_names) == (["a", "b"], ["cat", "dog"])

    scores, labels = torch.rand(2, 2), torch.tensor([[1, -1], [0, 1]])
    ScorePredictions(scores, labels, ["a", "b"], ["cat", "dog"]).save(tmp_path)
    again = ScorePredictions.load(tmp_path)
    assert torch.equal(again.scores, scores)
    assert torch.equal(again.labels, labels)
    assert (again.images, again.class_names) == (["a", "b"], ["cat", "dog"])
