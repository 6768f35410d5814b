"""Boxes in the frame of a window, and what regressors are taught by."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import box_iou, generalized_box_iou

from detection.localization.box_codes import (
    box_loss,
    from_window,
    paired_iou,
    starting_output,
    to_window,
)

WINDOWS = torch.tensor([[0.0, 0, 100, 100], [20, 40, 220, 240]])
BOXES = torch.tensor([[25.0, 10, 75, 110], [20, 40, 120, 240]])


def boxes_of(seed, count):
    generator = torch.Generator().manual_seed(seed)
    corner = 200 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + 5 + 100 * torch.rand(count, 2, generator=generator)], 1)


def test_edges_are_shares_of_the_window():
    """Figure 8: left, top, right, bottom in the window's own frame."""
    said = to_window(WINDOWS, BOXES, "edges")
    torch.testing.assert_close(said, torch.tensor([[0.25, 0.1, 0.75, 1.1], [0, 0, 0.5, 1]]))


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), code=st.sampled_from(["edges", "centre_size"]))
def test_round_trip(seed, code):
    windows, boxes = boxes_of(seed, 7), boxes_of(seed + 1, 7)
    back = from_window(windows, to_window(windows, boxes, code), code)
    torch.testing.assert_close(back, boxes, atol=1e-2, rtol=1e-4)
    several = to_window(windows, boxes, code)[:, None].expand(-1, 3, -1)
    assert torch.equal(from_window(windows[:, None], several, code)[:, 2], back)


def test_edges_that_cross_are_put_in_order():
    said = torch.tensor([[0.75, 0.2, 0.25, 0.1]])
    assert from_window(WINDOWS[:1], said, "edges")[0].tolist() == pytest.approx([25, 10, 75, 20])


@pytest.mark.parametrize("code", ["edges", "centre_size"])
def test_a_fresh_regressor_says_the_window(code):
    output = nn.Linear(16, 8)
    starting_output(output, code)
    said = output(torch.zeros(2, 16)).view(2, 2, 4)[:, 1]
    torch.testing.assert_close(from_window(WINDOWS, said, code), WINDOWS)


@pytest.mark.parametrize("code", ["edges", "centre_size"])
def test_losses(code):
    windows, boxes, found = boxes_of(1, 9), boxes_of(2, 9), boxes_of(3, 9)
    said = to_window(windows, found, code)
    squares = (said - to_window(windows, boxes, code)) ** 2
    wanted = {
        "l2": squares.sum() / 9,
        "iou": 1 - box_iou(found, boxes).diagonal().mean(),
        "giou": 1 - generalized_box_iou(found, boxes).diagonal().mean(),
    }
    for loss, value in wanted.items():
        torch.testing.assert_close(box_loss(said, windows, boxes, code, loss), value, rtol=1e-4,
                                   atol=1e-5)  # fmt: skip
    small = to_window(windows, boxes, code) + 0.02
    smooth = box_loss(small, windows, boxes, code, "smooth_l1")
    assert float(smooth) == pytest.approx(4 * 0.5 * 0.02**2 / 0.1, rel=1e-2)
    for loss in ("l2", "smooth_l1", "iou", "giou"):
        right = to_window(windows, boxes, code)
        assert float(box_loss(right, windows, boxes, code, loss)) == pytest.approx(0, abs=1e-5)
        nothing = torch.zeros(0, 4, requires_grad=True)
        box_loss(nothing, windows[:0], boxes[:0], code, loss).backward()
        assert nothing.grad is not None


def test_paired_overlap_is_the_diagonal():
    one, other = boxes_of(4, 30), boxes_of(5, 30)
    torch.testing.assert_close(paired_iou(one, other), box_iou(one, other).diagonal())
