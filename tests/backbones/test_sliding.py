"""The windows that fc layers read, against offset pooling and sliding (OverFeat, 3.3)."""

import pytest
import torch
from torch import nn

from detection.backbones.backbone import Backbone, Preprocessing
from detection.backbones.head import Head, fresh_fully_connected
from detection.backbones.overfeat import overfeat_accurate
from detection.backbones.sliding import OffsetPooling, SlidingWindows, interleaved
from detection.errors import UserError

INPUTS = {"mean": [0.5] * 3, "std": [0.25] * 3}


def accurate():
    return overfeat_accurate(weights=None, width=0.05, init_std=None, input_px=221, **INPUTS)


def averaging(side=64):
    """A network of stride 8 that averages its map."""
    conv = nn.Sequential(nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 6, 3, 4, 1))
    inputs = Preprocessing(side, INPUTS["mean"], INPUTS["std"])
    return Backbone(conv, None, 1, None, inputs, channels=6)


@pytest.mark.parametrize("fine", [True, False])
def test_rows_are_what_sliding_reads(fine):
    pooling = OffsetPooling(3, 3, 4)
    windows = SlidingWindows(pooling, fine, 100, 8, 0.0)
    maps = torch.randn(1, 5, 17, 20)  # 2 mod 3: all offsets fill it alike
    head = Head(80, fresh_fully_connected(80, 12), {"out": ("fc7", 3)})
    offsets = 3 if fine else 1
    slid = interleaved(head.slide(pooling(maps, offsets), 4, "out"), offsets)
    rows = windows.rows(maps)
    down, across = windows.shape(maps.shape[2:])
    mine = head(rows, "out").T.view(3, down, across)
    torch.testing.assert_close(mine[:, : slid.shape[2], : slid.shape[3]], slid[0])
    places = torch.tensor([0, across, down * across - 1])
    assert torch.equal(windows.rows(maps, places), rows[places])
    assert windows.rows(maps, places[:0]).shape == (0, 80)


def test_windows_of_the_accurate_network_lie_where_its_inputs_do():
    """Table 5: at scale 1 nine windows of 221 pixels, 12 apart; the first begins at the corner."""
    backbone = accurate()
    windows = SlidingWindows.of(backbone)
    cells = backbone.map_side(245), backbone.map_side(245)
    assert windows.shape(cells) == (3, 3)
    boxes = windows.boxes(cells)
    assert boxes[0].tolist() == [0, 0, 221, 221]
    assert boxes[5].tolist() == [24, 12, 245, 233]
    sizes = [(245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569)]
    shapes = [windows.shape([backbone.map_side(s) for s in size]) for size in sizes]
    assert shapes == [(3, 3), (6, 9), (9, 15), (15, 21), (18, 24), (21, 30)]
    coarse = SlidingWindows.of(backbone, fine=False)
    assert coarse.shape([backbone.map_side(s) for s in (281, 317)]) == (2, 3)


def test_a_window_reads_what_the_network_reads_of_its_crop():
    """Without padding inside, a window's features are those of its pixels alone."""
    conv = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3))
    fc = nn.Linear(6 * 9, 5), nn.Linear(5, 5)
    # 25 pixels → 11 cells → 9 → pooled 3/3 to 3
    backbone = Backbone(conv, fc, 3, (3, 3), Preprocessing(25, INPUTS["mean"], INPUTS["std"]))
    windows, image = SlidingWindows.of(backbone), torch.rand(1, 3, 41, 47)
    maps = backbone.maps(image)
    rows, boxes = windows.rows(maps), windows.boxes(maps.shape[2:])
    for row, box in zip(rows, boxes.long().tolist(), strict=True):
        crop = image[:, :, box[1] : box[3], box[0] : box[2]]
        expected = backbone.pool5(backbone.maps(crop)).flatten()
        torch.testing.assert_close(row, expected)


def test_networks_that_average_are_read_by_means():
    backbone = averaging()
    windows = SlidingWindows.of(backbone, grid=4)
    assert (windows.pooling.kernel, windows.pooling.grid, windows.pooling.span) == (2, 4, 8)
    maps = torch.randn(1, 6, 8, 10)
    means = windows.means(maps)
    assert means.shape == (3, 6)
    torch.testing.assert_close(means[2], maps[0, :, :, 2:10].mean(dim=(1, 2)))
    assert torch.equal(windows.means(maps, torch.tensor([1])), means[1:2])


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="grid=3 does not divide the 8 cells"):
        SlidingWindows.of(averaging(), grid=3)
    with pytest.raises(UserError, match="pools to 5"):
        SlidingWindows.of(accurate(), grid=2)
    with pytest.raises(ValueError, match="no window of 15 cells"):
        SlidingWindows.of(accurate()).shape((14, 20))
