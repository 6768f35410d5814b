"""The fast pyramid over windows against adaptive max-pooling of each window."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import oracle
from hypothesis import given, settings
from hypothesis import strategies as st

import detection.backbones.windows as module
from detection.backbones.windows import average_windows, pool_windows
from detection.sppnet.image_features import SpatialPyramidPooling


def naive(feature_map, windows, levels):
    """Window by window, level by level."""
    image = feature_map.permute(2, 0, 1)
    rows = []
    for x1, y1, x2, y2 in windows.tolist():
        crop = image[:, y1:y2, x1:x2]
        bins = [F.adaptive_max_pool2d(crop, n).flatten(1) for n in levels]
        rows.append(torch.cat(bins, dim=1).t())
    return torch.stack(rows)


def random_windows(height, width, count, generator):
    def span(size):
        ends = torch.randint(0, size, (count, 2), generator=generator).sort(dim=1).values
        return ends[:, 0], ends[:, 1] + 1

    (x1, x2), (y1, y2) = span(width), span(height)
    return torch.stack([x1, y1, x2, y2], dim=1)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    levels=st.sampled_from([(6, 3, 2, 1), (1, 2, 3, 6), (4, 3, 2, 1), (7,), (5, 1), (2, 2)]),
)
def test_equals_adaptive_pooling(seed, height, width, levels):
    generator = torch.Generator().manual_seed(seed)
    grid = torch.randn(height, width, 3, generator=generator)
    windows = random_windows(height, width, 17, generator)
    assert torch.equal(pool_windows(grid, windows, levels), naive(grid, windows, levels))


@pytest.mark.parametrize("side", range(1, 40))
def test_every_size_of_window(side):
    """The levels 3, 2 and 1 are exact maxima of level 6's bins, on all sizes."""
    grid = torch.randn(side, side, 2, generator=torch.Generator().manual_seed(side))
    windows = torch.tensor([[0, 0, side, side]])
    assert torch.equal(
        pool_windows(grid, windows, (6, 3, 2, 1)), naive(grid, windows, (6, 3, 2, 1))
    )


def test_blocks_of_windows_do_not_matter(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    grid = torch.randn(20, 30, 8, generator=generator)
    windows = random_windows(20, 30, 100, generator)
    whole = pool_windows(grid, windows, (6, 3, 2, 1))
    monkeypatch.setattr(module, "BLOCK_NUMBERS", 1000)
    assert torch.equal(pool_windows(grid, windows, (6, 3, 2, 1)), whole)


def test_no_windows_and_bfloat16():
    grid = torch.randn(5, 5, 4).bfloat16()
    assert pool_windows(grid, torch.zeros(0, 4, dtype=torch.long), (2, 1)).shape == (0, 5, 4)
    window = torch.tensor([[1, 1, 4, 5]])
    assert torch.equal(
        pool_windows(grid, window, (2, 1)), naive(grid.float(), window, (2, 1)).bfloat16()
    )


def test_whole_maps_give_the_same_bins_as_windows():
    """Pre-training and detection must agree on the order of an fc6's inputs."""
    grid = torch.randn(9, 13, 6)
    pooled = SpatialPyramidPooling((6, 3, 2, 1))(grid.permute(2, 0, 1)[None])
    windows = pool_windows(grid, torch.tensor([[0, 0, 13, 9]]), (6, 3, 2, 1))
    assert torch.equal(pooled, windows)


def test_against_torchvision_roi_pool_where_their_bins_agree():
    """roi_pool counts cells inclusively, with the same floor and ceil edges on whole cells."""
    from torchvision.ops import roi_pool

    generator = torch.Generator().manual_seed(1)
    grid = torch.randn(30, 40, 5, generator=generator)
    windows = random_windows(30, 40, 50, generator)
    inclusive = windows.float() - torch.tensor([0, 0, 1, 1])
    rois = torch.cat([torch.zeros(50, 1), inclusive], dim=1)
    theirs = roi_pool(grid.permute(2, 0, 1)[None], rois, 6)
    ours = pool_windows(grid, windows, (6,))
    same = torch.isclose(ours, theirs.flatten(2).transpose(1, 2)).float().mean()
    assert same > 0.99  # roi_pool's float32 bin edges go astray on a few


@pytest.mark.parametrize(("name", "levels"), [("6321", (6, 3, 2, 1)), ("421", (4, 2, 1))])
def test_oracle_of_adaptive_pooling(name, levels):
    """The oracle flattens channels first inside a level; ours are bins first."""
    vectors = np.load(oracle("torchvision_ops") / "vectors.npz")
    maps = torch.from_numpy(vectors["feat"])
    want = torch.from_numpy(vectors[f"spp_adaptive_max_{name}"])
    pooled = SpatialPyramidPooling(levels)(maps)  # (B, bins, C)
    sizes = [n * n for n in levels]
    got = torch.cat([p.transpose(1, 2).flatten(1) for p in pooled.split(sizes, dim=1)], dim=1)
    assert torch.equal(got, want)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 40), width=st.integers(1, 40))
def test_means_are_those_of_each_window(seed, height, width):
    generator = torch.Generator().manual_seed(seed)
    grid = 100 * torch.rand(height, width, 3, generator=generator)
    windows = random_windows(height, width, 17, generator)
    expected = [grid[y1:y2, x1:x2].mean(dim=(0, 1)) for x1, y1, x2, y2 in windows.tolist()]
    torch.testing.assert_close(average_windows(grid, windows), torch.stack(expected))
