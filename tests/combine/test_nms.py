"""Suppression and the limits on what is kept."""

import pytest
import torch

from detection.combine.nms import NMS, concatenate, no_detections


def flat(boxes, scores, labels=None):
    """Candidates, all of class 0 unless told."""
    scores = torch.as_tensor(scores)
    labels = torch.zeros(len(scores), dtype=torch.long) if labels is None else labels
    return {"boxes": torch.as_tensor(boxes), "scores": scores, "labels": torch.as_tensor(labels)}


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
    found = NMS(0.25, 100, 300)(flat([[0.0, 0, 10, 10], second_box], [0.9, 0.8]))
    assert len(found["boxes"]) == kept
    assert found["scores"][0] == pytest.approx(0.9)


def test_classes_do_not_suppress_each_other():
    found = NMS(0.3, 100, 300)(flat([[0.0, 0, 10, 10]] * 2, [0.5, 0.9], [0, 1]))
    assert found["labels"].tolist() == [1, 0]


def test_limits_of_class_and_image():
    corner = torch.arange(50.0)[:, None] * 20
    boxes = torch.cat([corner, corner, corner + 10, corner + 10], dim=1)[:, None].expand(-1, 3, -1)
    scores = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3).repeat(50)
    found = NMS(0.3, 10, 25)(flat(boxes.reshape(-1, 4), scores.flatten(), labels))
    assert len(found["scores"]) == 25
    assert found["labels"].bincount().max() <= 10
    assert (found["scores"].diff() <= 0).all()
    want = torch.cat([scores[:, c].topk(10).values for c in range(3)]).topk(25).values
    assert torch.equal(found["scores"], want)


def test_nothing_gives_nothing():
    assert NMS()(no_detections())["boxes"].shape == (0, 4)
    assert concatenate([])["boxes"].shape == (0, 4)
    assert concatenate([no_detections(), no_detections()])["labels"].shape == (0,)


def test_the_union_of_two_sets_is_suppressed_as_one():
    """SPP-net, 4.4: the better of two networks' boxes of one object stays."""
    one = flat([[0.0, 0, 10, 10]], [0.6])
    two = flat([[0.0, 0, 10, 9], [50.0, 50, 60, 60]], [0.8, 0.1])
    found = NMS()(concatenate([one, two]))
    assert found["scores"].tolist() == pytest.approx([0.8, 0.1])
