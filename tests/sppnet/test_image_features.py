"""The pyramid over whole maps."""

import pytest
import torch

from detection.errors import UserError
from detection.sppnet.image_features import SpatialPyramidPooling


def test_fifty_bins_of_any_map():
    pyramid = SpatialPyramidPooling((6, 3, 2, 1))
    for size in ((13, 13), (10, 10), (1, 1), (43, 57)):
        assert pyramid(torch.randn(2, 256, *size)).shape == (2, 50, 256)


def test_paper_recipe_on_13():
    """SPP-net, figure 4: windows 5, 7, 13 and strides 4, 6, 13 on a 13×13 map."""
    maps = torch.randn(1, 4, 13, 13)
    got = SpatialPyramidPooling((3, 2, 1), "paper")(maps)
    pools = [torch.nn.MaxPool2d(w, s) for w, s in ((5, 4), (7, 6), (13, 13))]
    want = torch.cat([p(maps).flatten(2) for p in pools], dim=2).transpose(1, 2)
    assert torch.equal(got, want)


@pytest.mark.parametrize("side", [8, 9, 10, 11, 15, 16, 17, 22, 23, 29])
def test_paper_recipe_refuses_sizes_where_it_fails(side):
    """ORIGINAL_FACTS, 2.2: level 6 has other numbers of bins on these."""
    with pytest.raises(UserError, match=f"level 6 on a map of side {side}"):
        SpatialPyramidPooling((6,), "paper")(torch.randn(1, 1, side, side))


@pytest.mark.parametrize("side", [6, 7, 12, 13, 14, 18, 24, 30])
def test_paper_recipe_elsewhere(side):
    assert SpatialPyramidPooling((6,), "paper")(torch.randn(1, 1, side, side)).shape[1] == 36


def test_gradient_reaches_the_maps():
    maps = torch.randn(1, 2, 7, 7, requires_grad=True)
    SpatialPyramidPooling((2, 1))(maps).sum().backward()
    assert maps.grad is not None
    assert maps.grad.count_nonzero() > 0
