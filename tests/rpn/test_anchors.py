"""Anchors, and which of them a step learns from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.backbones.backbone import ReceptiveField
from detection.boxes import box_iou, decode
from detection.errors import UserError
from detection.matching import Matcher
from detection.rpn.anchor_loss import sample_anchors
from detection.rpn.anchors import Anchors
from detection.rpn.crops import BoxCrop
from detection.rpn.training import RPNOptions

ANCHORS = Anchors([32, 64], [0.5, 1.0, 2.0])
FIELD = ReceptiveField(stride=16, size=99, start=11.0)


def test_anchors_have_their_areas_shapes_and_centres():
    boxes = ANCHORS.boxes(FIELD, (3, 4)).view(3, 4, 6, 4)
    for y in range(3):
        for x in range(4):
            for number, (size, ratio) in enumerate(
                (s, r) for s in (32, 64) for r in (0.5, 1.0, 2.0)
            ):
                x1, y1, x2, y2 = boxes[y, x, number].tolist()
                assert (x2 - x1) * (y2 - y1) == pytest.approx(size**2, rel=1e-4)
                assert (y2 - y1) / (x2 - x1) == pytest.approx(ratio, rel=1e-4)
                centre = ((x1 + x2) / 2, (y1 + y2) / 2)
                assert centre == pytest.approx((11.5 + 16 * x, 11.5 + 16 * y), abs=1e-3)
    assert len(ANCHORS) == 6


@pytest.mark.parametrize("options", [{"sizes_px": []}, {"sizes_px": [-1]}, {"ratios": [0.0]}])
def test_what_is_no_anchor_is_refused(options):
    with pytest.raises(UserError, match="anchors"):
        Anchors(**{"sizes_px": [32], **options})


def kinds_of(anchors, gt, hidden, options):
    """Faster R-CNN's rule by loops: 1 object, 0 background, -1 neither; its ground truth."""
    overlap = box_iou(anchors, gt).numpy() if len(gt) else np.zeros((len(anchors), 0))
    best_of_gt = overlap.max(axis=0) if len(gt) else np.zeros(0)
    kinds, which = [], []
    for row, mine in enumerate(overlap):
        kind = -1
        if len(mine) == 0 or mine.max() < options.matcher.background_max_iou:
            kind = 0
        forced = [
            g for g in range(len(mine)) if best_of_gt[g] > 0 and mine[g] >= best_of_gt[g] - 1e-6
        ]
        of = int(mine.argmax()) if len(mine) else 0
        if len(mine) and mine.max() >= options.matcher.foreground_min_iou:
            kind = 1
        if forced:
            kind, of = 1, max(forced, key=lambda g: mine[g])
        if kind == 0 and len(hidden):
            seen = box_iou(anchors[row : row + 1], hidden).max()
            kind = 0 if seen < options.matcher.background_max_iou else -1
        kinds.append(kind)
        which.append(of)
    return np.array(kinds), np.array(which)


def boxes_of(generator, count):
    corner = generator.uniform(0, 60, (count, 2))
    other = corner + generator.uniform(5, 40, (count, 2))
    return torch.from_numpy(np.concatenate([corner, other], 1)).float()


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6), objects=st.integers(0, 4), hidden=st.integers(0, 2),
    cross_boundary=st.booleans(),
)  # fmt: skip
def test_sampled_anchors_are_what_the_rule_says(seed, objects, hidden, cross_boundary):
    generator = np.random.default_rng(seed)
    anchors = ANCHORS.boxes(FIELD, (5, 6))
    gt, partly = boxes_of(generator, objects), boxes_of(generator, hidden)
    options = RPNOptions(
        matcher=Matcher(0.6, 0.0, 0.3, best_of_each_gt=True), cross_boundary=cross_boundary
    )
    crop = BoxCrop(0, seed, torch.zeros(3, 1, 1), gt, partly, 0)
    found = sample_anchors(
        anchors, crop.boxes, crop.hidden, (96, 96), options, np.random.default_rng(seed)
    )
    inside = [n for n, box in enumerate(anchors.tolist())
              if cross_boundary or (min(box) >= 0 and max(box) <= 96)]  # fmt: skip
    kinds, which = np.full(len(anchors), -1), np.zeros(len(anchors), int)
    kinds[inside], which[inside] = kinds_of(anchors[inside], gt, partly, options)
    count = int(found.is_object.sum())
    assert count == min(4, (kinds == 1).sum())
    assert len(found.anchor) == count + min(8 - count, (kinds == 0).sum())
    assert len(set(found.anchor.tolist())) == len(found.anchor)
    assert (kinds[found.anchor[:count]] == 1).all()
    assert (kinds[found.anchor[count:]] == 0).all()
    assert (found.is_object[:count] == 1).all()
    back = decode(anchors[found.anchor[:count]], found.codes)
    wanted = gt[which[found.anchor[:count]]].reshape(-1, 4)
    torch.testing.assert_close(back, wanted, atol=1e-2, rtol=0)


def test_anchors_that_leave_the_crop_may_be_left_out():
    options = RPNOptions(cross_boundary=False, anchors_per_image=1000)
    gt = torch.tensor([[0.0, 0, 30, 30]])
    crop = BoxCrop(0, 0, torch.zeros(3, 1, 1), gt, gt[:0], 0)
    anchors = ANCHORS.boxes(FIELD, (6, 6))
    found = sample_anchors(
        anchors, crop.boxes, crop.hidden, (96, 96), options, np.random.default_rng(0)
    )
    chosen = anchors[found.anchor]
    assert found.is_object.sum() > 0  # the best of those that stay, however little it overlaps
    assert chosen.min() >= 0
    assert chosen.max() <= 96
