"""Geometry of boxes."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.boxes import decode, encode, flip, inside
from detection.matching import Matcher


def boxes(seed: int, count: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 50
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * 50], dim=1)


@settings(deadline=None)
@given(seed=st.integers(0, 10**6))
def test_decode_is_the_inverse_of_encode(seed):
    source, target = boxes(seed), boxes(seed + 1)
    torch.testing.assert_close(decode(source, encode(source, target)), target, atol=1e-3, rtol=0)


def test_encode_by_hand():
    got = encode(torch.tensor([[0.0, 0, 10, 20]]), torch.tensor([[5.0, 0, 25, 40]]))
    want = torch.tensor([[1.0, 0.5, torch.log(torch.tensor(2.0)), torch.log(torch.tensor(2.0))]])
    torch.testing.assert_close(got, want)


def test_decode_of_wild_deltas_stays_finite():
    assert decode(boxes(0), torch.full((20, 4), 1e6)).isfinite().all()


def test_flip_twice_is_nothing():
    assert torch.equal(flip(flip(boxes(0).round(), 100), 100), boxes(0).round())


def test_empty_is_normal():
    empty = torch.zeros(0, 4)
    assert (
        encode(empty, empty).shape == decode(empty, empty).shape == flip(empty, 5).shape == (0, 4)
    )
    index, _, overlap = Matcher()(boxes(0), empty)
    assert overlap.tolist() == [0] * 20
    assert index.tolist() == [0] * 20
    assert Matcher()(empty, boxes(0)).iou.shape == (0,)


def test_the_share_of_a_box_that_a_window_sees():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 25]])
    windows = torch.tensor([[0.0, 0, 10, 10], [0, 0, 15, 5], [50, 50, 60, 60]])
    assert inside(boxes, windows).tolist() == [[1, 0.5, 0], [0.125, 0, 0]]
    assert inside(boxes[:0], windows).shape == (0, 3)
