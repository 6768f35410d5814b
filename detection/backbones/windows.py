"""Windows on feature maps (SPP-net, section 4.1): which scale, which cells, and their pyramids.

Pooling: the maximum over any rectangle is the maximum of four overlapping blocks whose sides are
powers of two, and the maxima over all such blocks of a map fit in a table that is made once. So a
bin costs four reads of C numbers that lie side by side, whatever its size. No gradient flows:
SPP-net keeps the convolutions as they are.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.backbones.backbone import ReceptiveField

ScaleRule = Literal["paper", "original"]


def choose_scales(
    boxes: Tensor, min_side_px: int, scales_px: Sequence[int], target_px: float, rule: ScaleRule
) -> Tensor:
    """Index of the scale at which each window is read, (R,) int64; the first among equals.

    Args:
        boxes: (R, 4) half-open xyxy in pixels of the original image.
        min_side_px: shorter side of that image.
        scales_px: shorter sides of the scaled images.
        target_px: side of the square to which a scaled window should be nearest: 224 in the paper.
        rule: "paper": nearest in area; "original": nearest in scale to
            round(target · shorter side / √area), with a target of 13 · 16 = 208.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(dim=1).double()
    scales = torch.tensor(scales_px, dtype=torch.double, device=boxes.device)
    if rule == "original":
        # Matlab rounds halves away from zero
        wanted = torch.floor(target_px * min_side_px / area.sqrt() + 0.5)
        return (scales - wanted[:, None]).abs().argmin(dim=1)
    scaled_area = area[:, None] * (scales / min_side_px) ** 2  # (R, S)
    return (scaled_area - target_px**2).abs().argmin(dim=1)


def scale_boxes(boxes: Tensor, min_side_px: int, scales_px: Tensor) -> Tensor:
    """First and last pixel (0-based, inclusive) of windows in their scaled images, (R, 4) double.

    The original maps pixel p of the image to p (s - 1) / (m - 1): corners go to corners.

    Args:
        boxes: (R, 4) half-open xyxy in pixels of the original image.
        min_side_px: shorter side m of that image.
        scales_px: (R,) shorter side s of the scaled image of each window.
    """
    pixels = boxes.double()
    pixels = torch.cat([pixels[:, :2], pixels[:, 2:] - 1], dim=1)
    factor = (scales_px.double() - 1) / max(1, min_side_px - 1)
    return pixels * factor[:, None]


def windows_on_map(
    pixels: Tensor, field: ReceptiveField, shrink_px: float, map_size: tuple[int, int]
) -> Tensor:
    """Cells of the map that belong to each window, (R, 4) int64 xyxy, half-open, never empty.

    SPP_net: utils/spm_pool/spm_pool_caffe_mex.cpp, with the stride and the offset computed from
    the network's layers. Every side is drawn in by `shrink_px`, for the field of a cell on the
    window's border reaches beyond it.

    Args:
        pixels: (R, 4) first and last pixel of each window in the scaled image, from 0.
        field: of the map.
        shrink_px: 6.5 in the original for ZF-5.
        map_size: height and width of the map.
    """
    place = (pixels - field.start) / field.stride  # (R, 4) in cells; the first cell's centre is 0
    shrink = shrink_px / field.stride
    first = torch.floor(place[:, :2] + shrink + 0.5)
    last = torch.ceil(place[:, 2:] - shrink - 0.5)
    # the original's midpoint is truncated on 1-based cells
    middle = torch.trunc((first + last) / 2 + 1) - 1
    crossed = first > last
    first, last = torch.where(crossed, middle, first), torch.where(crossed, middle, last)
    height, width = map_size
    limit = torch.tensor([width - 1, height - 1], device=pixels.device).double()
    first, last = (torch.minimum(v.clamp(min=0), limit) for v in (first, last))
    return torch.cat([first, last + 1], dim=1).long()


BLOCK_NUMBERS = 2**20  # numbers worked on at a time: 4 MB of float32 stay in a core's cache


@torch.no_grad()
def pool_windows(feature_map: Tensor, windows: Tensor, levels: Sequence[int]) -> Tensor:
    """Exact maxima over the bins of a pyramid in each window.

    Bin i of n along a window of length L spans floor(i L / n) to ceil((i + 1) L / n), as in
    adaptive max-pooling and in the original's `spm_pool_caffe_mex.cpp`.

    Args:
        feature_map: (H, W, C), channels last.
        windows: (R, 4) int64 xyxy in cells of the map, half-open, inside it and not empty.
        levels: bins along a side, such as (6, 3, 2, 1); in any order.

    Returns:
        (R, sum of n² over levels, C): level after level, row by row in each.

    >>> grid = torch.arange(16.0).reshape(4, 4, 1)
    >>> pool_windows(grid, torch.tensor([[0, 0, 4, 4]]), (2, 1)).squeeze().tolist()
    [5.0, 7.0, 13.0, 15.0, 15.0]
    """
    channels = feature_map.shape[2]
    starts = [0, *accumulate(n * n for n in levels)]
    pooled = feature_map.new_empty(len(windows), starts[-1], channels)
    # levels 3, 2 and 1 come from the 36 maxima of level 6, not from the map
    source = {n: finest_multiple(n, levels) for n in levels}
    tables = {n: tables_for(feature_map, windows, n) for n in set(source.values())}
    step = max(1, BLOCK_NUMBERS // (channels * max(levels) ** 2))
    # allocated once: a fresh block of memory for each slice costs more than the maxima
    spare = {n: feature_map.new_empty(2, step * n * n, channels) for n in tables}
    for first in range(0, len(windows), step):  # blocks of windows, for the cache's sake
        block = slice(first, first + step)
        maxima = {n: largest_in_bins(*tables[n], block, spare[n]) for n in tables}
        for n, start, stop in zip(levels, starts, starts[1:], strict=False):
            pooled[block, start:stop] = merge_bins(maxima[source[n]], n).flatten(1, 2)
    return pooled


@torch.no_grad()
def average_windows(feature_map: Tensor, windows: Tensor) -> Tensor:
    """(R, C) means over the cells of windows; each costs four reads of C sums.

    Args:
        feature_map: see `pool_windows`.
        windows: see `pool_windows`.

    >>> grid = torch.arange(16.0).reshape(4, 4, 1)
    >>> average_windows(grid, torch.tensor([[0, 0, 4, 4], [2, 1, 4, 2]])).squeeze(1).tolist()
    [7.5, 6.5]
    """
    # sums over all cells above and to the left; differences of large sums need double precision
    sums = F.pad(feature_map.double().cumsum(dim=0).cumsum(dim=1), (0, 0, 1, 0, 1, 0))
    x1, y1, x2, y2 = windows.unbind(dim=1)
    inside = sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]
    cells = (x2 - x1) * (y2 - y1)
    return (inside / cells[:, None]).to(feature_map.dtype)


def finest_multiple(level: int, levels: Sequence[int]) -> int:
    """The largest level whose bins are halves, thirds, ... of this level's.

    With floor and ceil edges, a bin of level n is then exactly the union of such bins.

    >>> [finest_multiple(n, (6, 4, 3)) for n in (6, 4, 3)]
    [6, 4, 6]
    """
    return max(other for other in levels if other % level == 0)


def merge_bins(maxima: Tensor, level: int) -> Tensor:
    """(R, m, m, C) maxima of a finer level as (R, n, n, C), where n divides m."""
    windows, fine, _, channels = maxima.shape
    k = fine // level
    if k == 1:
        return maxima
    cells = maxima.reshape(windows, level, k, level, k, channels)
    # torch.amax over these dimensions reads with long strides: 12 times slower
    merged = cells[:, :, 0, :, 0].clone()
    for i in range(1, k * k):
        torch.maximum(merged, cells[:, :, i // k, :, i % k], out=merged)
    return merged


def tables_for(feature_map: Tensor, windows: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """The table of block maxima that a level needs, and where each bin finds its four blocks.

    Returns:
        (blocks, C) table; (4, R, n, n) int64 rows of it.
    """
    height, width, channels = feature_map.shape
    y_low, y_high = bin_edges(windows[:, 1], windows[:, 3], level)  # (R, n)
    x_low, x_high = bin_edges(windows[:, 0], windows[:, 2], level)
    # a bin of 5 cells is two overlapping blocks of 4: the largest power of two that fits in it
    y_power, x_power = floor_log2(y_high - y_low), floor_log2(x_high - x_low)
    rows = int(y_power.max()) + 1 if len(windows) else 1
    columns = int(x_power.max()) + 1 if len(windows) else 1
    table = block_maxima(feature_map, rows, columns)
    # the second block ends where the bin ends
    y_last = y_high - torch.bitwise_left_shift(torch.ones_like(y_power), y_power)
    x_last = x_high - torch.bitwise_left_shift(torch.ones_like(x_power), x_power)
    block = y_power[:, :, None] * columns + x_power[:, None, :]  # (R, n, n)
    places = [
        (block * height + y[:, :, None]) * width + x[:, None, :]
        for y in (y_low, y_last)
        for x in (x_low, x_last)
    ]
    return table.reshape(-1, channels), torch.stack(places)


def bin_edges(low: Tensor, high: Tensor, level: int) -> tuple[Tensor, Tensor]:
    """First and last-plus-one cell of each of n bins along windows, (R, n) each."""
    index = torch.arange(level, device=low.device)
    length = (high - low)[:, None]
    first = index * length // level
    stop = -(-(index + 1) * length // level)  # rounds up
    return low[:, None] + first, low[:, None] + stop


def floor_log2(length: Tensor) -> Tensor:
    """Exponent of the largest power of two that is not above each length (< 2^24)."""
    return torch.frexp(length.float())[1].long() - 1


def block_maxima(feature_map: Tensor, rows: int, columns: int) -> Tensor:
    """Maxima over all blocks of 2^i by 2^j cells, (rows, columns, H, W, C).

    Entry [i, j, y, x] is the maximum of the block whose first cell is (y, x); entries of blocks
    that leave the map hold numbers that are never asked for.
    """
    height, width = feature_map.shape[:2]
    table = feature_map.new_empty(rows, columns, *feature_map.shape)
    table[0, 0] = feature_map
    # each block is two of half its length: one maximum a cell and size, whatever the size
    for i in range(1, rows):
        shift = min(2 ** (i - 1), height)
        last, longer = table[i - 1, 0], table[i, 0]
        torch.maximum(last[: height - shift], last[shift:], out=longer[: height - shift])
    for j in range(1, columns):
        shift = min(2 ** (j - 1), width)
        last, longer = table[:, j - 1], table[:, j]
        torch.maximum(
            last[:, :, : width - shift], last[:, :, shift:], out=longer[:, :, : width - shift]
        )
    return table


def largest_in_bins(table: Tensor, places: Tensor, block: slice, spare: Tensor) -> Tensor:
    """Maxima over the four blocks of each bin, (R', n, n, C), for some of the windows.

    Args:
        table: (blocks, C).
        places: (4, R, n, n) rows of the table.
        block: which of the R windows.
        spare: (2, at least R' n², C) memory to work in; the result lies in it.
    """
    chosen = places[:, block].flatten(1)
    largest, other = spare[:, : chosen.shape[1]]
    torch.index_select(table, 0, chosen[0], out=largest)
    for more in chosen[1:]:
        torch.index_select(table, 0, more, out=other)
        torch.maximum(largest, other, out=largest)
    return largest.reshape(-1, *places.shape[2:], table.shape[1])
