"""Recall and mean average best overlap, by hand."""

import math
from types import SimpleNamespace

import torch

from detection.proposals.recall import ProposalRecall, recall_report


def dataset(gt, proposals):
    return SimpleNamespace(
        searched=list(range(len(gt))), gt=gt.__getitem__, proposals=proposals.__getitem__
    )


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float).reshape(-1, 4)


def test_overlaps_are_averaged_in_each_class_and_then_over_classes():
    """Class 0: IoU 1, 0.5 and 0; class 2: 0.8. A difficult object does not count."""
    gt = [
        (boxes([0, 0, 10, 10], [20, 0, 30, 10], [0, 40, 9, 49]), torch.tensor([0, 0, 2]),
         torch.tensor([False, False, True])),
        (boxes([0, 0, 10, 10], [50, 50, 60, 60]), torch.tensor([2, 0]),
         torch.tensor([False, False])),
    ]  # fmt: skip
    proposals = [boxes([0, 0, 10, 10], [20, 0, 30, 5]), boxes([0, 0, 10, 8])]
    found = ProposalRecall.of(dataset(gt, proposals))
    assert math.isclose(found.mabo, ((1 + 0.5 + 0) / 3 + 0.8) / 2, rel_tol=1e-6)
    assert found.figures() == {
        "proposals/recall_0.5": 0.75,
        "proposals/recall_0.7": 0.5,
        "proposals/mabo": found.mabo,
        "proposals/boxes_per_image": 1.5,
    }
    assert "mean average best overlap 65.0%" in recall_report("a", found)


def test_images_without_objects_or_proposals():
    nothing = (boxes(), torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.bool))
    assert math.isnan(ProposalRecall.of(dataset([nothing], [boxes([0, 0, 1, 1])])).mabo)
    one = (boxes([0, 0, 1, 1]), torch.tensor([0]), torch.tensor([False]))
    assert ProposalRecall.of(dataset([one], [boxes()])).mabo == 0
