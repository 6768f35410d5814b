"""Suppression and the limits on what is kept."""

import pytest
import torch

from detection.combine.nms import Suppression


@pytest.mark.parametrize(
    ("second_box", "kept"),
    [
        ([0.0, 0, 10, 10], 1),  # identical: the lower score goes
        ([0.0, 0, 10, 2.5], 2),  # IoU of exactly the limit: both stay, as in the original
        ([0.0, 0, 10, 4], 1),
        ([20.0, 20, 30, 30], 2),
    ],
)
def test_the_best_of_overlapping_boxes_stays(second_box, kept):
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [second_box]])
    scores = torch.tensor([[0.9], [0.8]])
    found = Suppression(0.25, 100, 300)(boxes, scores, 0.0)
    assert len(found["boxes"]) == kept
    assert found["scores"][0] == pytest.approx(0.9)


def test_classes_do_not_suppress_each_other():
    boxes = torch.tensor([0.0, 0, 10, 10]).expand(1, 2, 4)
    found = Suppression(0.3, 100, 300)(boxes, torch.tensor([[0.5, 0.9]]), 0.0)
    assert found["labels"].tolist() == [1, 0]


def test_limits_of_class_and_image():
    corner = torch.arange(50.0)[:, None] * 20
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)[:, None].expand(-1, 3, -1)
    scores = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    found = Suppression(0.3, 10, 25)(boxes, scores, -1.0)
    assert len(found["scores"]) == 25
    assert found["labels"].bincount().max() <= 10
    assert (found["scores"].diff() <= 0).all()
    want = torch.cat([scores[:, c].topk(10).values for c in range(3)]).topk(25).values
    assert torch.equal(found["scores"], want)


def test_least_score_infinity_and_nothing():
    boxes = torch.zeros(0, 2, 4)
    assert Suppression(0.3, 1, 1)(boxes, torch.zeros(0, 2), 0.0)["boxes"].shape == (0, 4)
    one = torch.tensor([0.0, 0, 1, 1]).expand(1, 2, 4)
    found = Suppression(0.3, 1, 1)(one, torch.tensor([[-torch.inf, -2.0]]), -1.5)
    assert len(found["scores"]) == 0
