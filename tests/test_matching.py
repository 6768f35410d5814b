"""Which ground truth a box belongs to: by hand, and against the loop that the words say."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from detection.matching import BACKGROUND, IGNORED, OBJECT, Matcher

SQUARE = torch.tensor([[0.0, 0, 10, 10]])


@pytest.mark.parametrize(
    ("height", "kind"),
    [(10, OBJECT), (5, OBJECT), (4.9, BACKGROUND), (1, BACKGROUND), (0.9, IGNORED)],
)
def test_edges_of_the_bands(height, kind):
    """SPP-net, 4.1: [0.5, 1] is object, [0.1, 0.5) background, the rest is ignored."""
    matches = Matcher(0.5, 0.1, 0.5)(torch.tensor([[0.0, 0, 10, height]]), SQUARE)
    assert matches.kind.tolist() == [kind]
    assert matches.iou.item() == pytest.approx(height / 10)


def test_between_the_bands_is_ignored():
    """RPN: 0.7 and 0.3."""
    boxes = torch.tensor([[0.0, 0, 10, 8], [0, 0, 10, 5], [0, 0, 10, 2]])
    kinds = Matcher(0.7, 0.0, 0.3)(boxes, SQUARE).kind.tolist()
    assert kinds == [OBJECT, IGNORED, BACKGROUND]


@pytest.mark.parametrize("best", [False, True])
def test_nothing_to_match(best):
    matcher = Matcher(0.5, 0.0, 0.5, best_of_each_gt=best)
    none = matcher(SQUARE, torch.zeros(0, 4))
    assert none.kind.tolist() == [BACKGROUND]
    assert none.gt.tolist() == [0]
    assert matcher(torch.zeros(0, 4), SQUARE).kind.shape == (0,)
    apart = matcher(torch.tensor([[50.0, 50, 60, 60]]), SQUARE)
    assert apart.kind.tolist() == [BACKGROUND]  # a best overlap of 0 forces nothing


def test_the_best_box_of_an_object_is_that_object():
    boxes = torch.tensor([[0.0, 0, 10, 4], [0, 0, 10, 3], [20, 20, 30, 30]])
    gt = torch.cat([SQUARE, torch.tensor([[20.0, 20, 30, 30]])])
    matches = Matcher(0.7, 0.0, 0.3, best_of_each_gt=True)(boxes, gt)
    assert matches.kind.tolist() == [OBJECT, IGNORED, OBJECT]
    assert matches.gt.tolist() == [0, 0, 1]


def boxes_of(size):
    corner = st.tuples(st.integers(0, 8), st.integers(0, 8))
    side = st.tuples(st.integers(1, 6), st.integers(1, 6))
    box = st.tuples(corner, side).map(lambda b: [*b[0], b[0][0] + b[1][0], b[0][1] + b[1][1]])
    return st.lists(box, max_size=size).map(lambda rows: torch.tensor(rows).float().reshape(-1, 4))


@settings(max_examples=60, deadline=None)
@given(boxes_of(8), boxes_of(4), st.sampled_from([(0.5, 0.1, 0.5), (0.7, 0.0, 0.3)]))
def test_equals_the_loop(boxes, gt, bands):
    high, low, until = bands
    matches = Matcher(*bands)(boxes, gt)
    for row, box in enumerate(boxes):
        overlaps = box_iou(box[None], gt)[0].tolist() if len(gt) else []
        best = max(overlaps, default=0.0)
        want = OBJECT if best >= high else BACKGROUND if low <= best < until else IGNORED
        assert matches.kind[row] == want
        if overlaps:
            assert matches.gt[row] == overlaps.index(best)
