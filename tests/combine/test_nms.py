"""Suppression and the limits on what is kept."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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


def nms_m(boxes, scores, overlap):
    """The original's nms.m in plain double arithmetic: what overlaps by just the limit stays."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best = left.pop(0)
        kept.append(best)
        low = np.maximum(boxes[left, :2], boxes[best, :2])
        high = np.minimum(boxes[left, 2:], boxes[best, 2:])
        inter = (high - low).clip(0).prod(axis=1)
        share = inter / (area[left] + area[best] - inter)
        left = [row for row, much in zip(left, share, strict=True) if much <= overlap]
    return kept


@given(seed=st.integers(0, 10_000), classes=st.sampled_from([1, 20, 10_000]),
       overlap=st.sampled_from([0.3, 0.4, 0.7, 0.1]))  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_equal_to_the_original_where_boxes_overlap_by_just_the_limit(seed, classes, overlap):
    """Sides of a few pixels meet the limit often; classes stand far apart, and do not matter."""
    generator = np.random.default_rng(seed)
    low = generator.integers(0, 500, (60, 2)) // 50 * 10 + generator.integers(0, 5, (60, 2))
    boxes = np.concatenate([low, low + generator.integers(3, 14, (60, 2))], axis=1).astype(float)
    scores = generator.permutation(60) / 64
    labels = generator.choice(generator.integers(0, classes, 3), 60)
    want = [row for label in np.unique(labels)
            for row in np.flatnonzero(labels == label)[
                nms_m(boxes[labels == label], scores[labels == label], overlap)]]  # fmt: skip
    candidates = flat(boxes.astype("f4"), scores.astype("f4"), torch.from_numpy(labels))
    assert sorted(NMS(overlap, 100, None).survivors(candidates).tolist()) == sorted(want)
