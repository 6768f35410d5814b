"""Networks read densely: pooled at every offset, fc layers slid over the map (OverFeat, 3.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from detection.backbones.backbone import Backbone
from detection.errors import UserError


@dataclass(frozen=True)
class OffsetPooling:
    """A network's last pooling, and the grid that its fc6 reads after it.

    Attributes:
        kernel: side of the published last pooling, in cells.
        stride: of it.
        grid: side of fc6's window in pooled cells.
    """

    kernel: int
    stride: int
    grid: int

    @classmethod
    def of(cls, backbone: Backbone) -> "OffsetPooling":
        """Of a backbone.

        Raises:
            UserError: its last pooling is not known, or it has no fc6.
        """
        if backbone.pool is None or not backbone.has_fc:
            raise UserError("views: only a network whose fc6 reads one grid can be read densely")
        return cls(*backbone.pool, backbone.fc6_grid)

    @classmethod
    def of_any(cls, backbone: Backbone, grid: int | None = None) -> "OffsetPooling":
        """The same, and of networks that average their map (ResNet): it is pooled to a grid.

        The cells of an input of the published size are shared out evenly: 14 cells and a grid of 7
        make a pooling of 2×2.

        Args:
            backbone: any.
            grid: side of the grid; None: the published one, or of networks that average all cells.

        Raises:
            UserError: the grid is not the published one, or does not divide the map.
        """
        if backbone.pool is not None and backbone.has_fc:
            if grid not in (None, backbone.fc6_grid):
                raise UserError(f"grid={grid}: this network pools to {backbone.fc6_grid}; say null")
            return cls.of(backbone)
        cells = backbone.map_side(backbone.input_px)
        grid = cells if grid is None else grid
        if grid < 1 or cells % grid:
            fitting = [n for n in range(1, cells + 1) if cells % n == 0]
            raise UserError(
                f"grid={grid} does not divide the {cells} cells of a map of {backbone.input_px} "
                f"pixels: choose of {', '.join(map(str, fitting))}"
            )
        return cls(cells // grid, cells // grid, grid)

    @property
    def span(self) -> int:
        """Cells of the map along a side of fc6's window."""
        return (self.grid - 1) * self.stride + self.kernel

    def sides(self, sides: Sequence[int], offsets: int) -> list[int]:
        """Sides of the pooled map at each of some offsets, of a map of some sides."""
        return [(side - (offsets - 1) - self.kernel) // self.stride + 1 for side in sides]

    def __call__(self, maps: Tensor, offsets: int) -> Tensor:
        """(B, C, h, w) → (offsets² · B, C, h', w'): pooled from each offset down and across.

        Where a side is not one that all offsets fill alike, the last places of the smaller
        offsets are left out.
        """
        reach = [
            (side - 1) * self.stride + self.kernel for side in self.sides(maps.shape[2:], offsets)
        ]
        pooled = [
            F.max_pool2d(maps[:, :, y : y + reach[0], x : x + reach[1]], self.kernel, self.stride)
            for y in range(offsets)
            for x in range(offsets)
        ]
        return torch.cat(pooled)


@dataclass(frozen=True)
class SlidingWindows:
    """The windows of a map that fc layers read, at every offset or at none, as rows.

    What offset pooling, sliding and interleaving give (`OffsetPooling`, `Head.slide`,
    `interleaved`), place by place: pooled at every cell, a window reads every `stride`-th. So any
    window can be had alone, as training wants it, and no place is left out at the map's end.

    Attributes:
        pooling: of the map, and fc6's grid.
        fine: at every offset; False: at none.
        input_px: side of a window in pixels: the input that the network was made for.
        stride_px: of the map, in pixels.
        start_px: pixel at which the first cell's field is centred.
    """

    pooling: OffsetPooling
    fine: bool
    input_px: int
    stride_px: int
    start_px: float

    @classmethod
    def of(cls, backbone: Backbone, grid: int | None = None, fine: bool = True) -> "SlidingWindows":
        """Those of a backbone; see `OffsetPooling.of_any`."""
        field = backbone.field
        pooling = OffsetPooling.of_any(backbone, grid)
        return cls(pooling, fine, backbone.input_px, field.stride, field.start)

    @property
    def step(self) -> int:
        """Cells from a window to the next."""
        return 1 if self.fine else self.pooling.stride

    def shape(self, cells: Sequence[int]) -> tuple[int, int]:
        """Windows down and across of a map of some cells; at least one each way.

        Raises:
            ValueError: the map is smaller than a window.
        """
        down, across = ((side - self.pooling.span) // self.step + 1 for side in cells)
        if min(down, across) < 1:
            raise ValueError(f"a map of {cells} has no window of {self.pooling.span} cells")
        return down, across

    def boxes(self, cells: Sequence[int]) -> Tensor:
        """(P, 4) half-open xyxy of the windows of a map, in pixels of its image, row by row.

        >>> windows = SlidingWindows(OffsetPooling(3, 3, 5), True, 221, 12, 26.0)
        >>> windows.boxes((17, 17))[[0, 1, 8]].tolist()[1:]
        [[12.0, 0.0, 233.0, 221.0], [24.0, 24.0, 245.0, 245.0]]
        """
        down, across = self.shape(cells)
        first = self.start_px + (self.pooling.span - 1) / 2 * self.stride_px + 0.5
        stride = self.step * self.stride_px
        y = (first + stride * torch.arange(down)).repeat_interleave(across)
        x = (first + stride * torch.arange(across)).repeat(down)
        half = self.input_px / 2
        return torch.stack([x - half, y - half, x + half, y + half], dim=1)

    def rows(self, maps: Tensor, places: Tensor | None = None) -> Tensor:
        """Features (P, C · grid²) of the windows of one map, as fc6 reads them.

        Args:
            maps: (1, C, h, w).
            places: (P,) numbers of windows, row by row; None: all.
        """
        pooled = F.max_pool2d(maps, self.pooling.kernel, 1) if self.pooling.kernel > 1 else maps
        grid, apart = self.pooling.grid, self.pooling.stride
        if places is None:
            return F.unfold(pooled, grid, dilation=apart, stride=self.step)[0].T
        across = self.shape(maps.shape[2:])[1]
        offset = apart * torch.arange(grid, device=maps.device)
        y = (places // across * self.step)[:, None] + offset  # (P, g)
        x = (places % across * self.step)[:, None] + offset
        return pooled[0][:, y[:, :, None], x[:, None]].transpose(0, 1).flatten(1)

    def means(self, maps: Tensor, places: Tensor | None = None) -> Tensor:
        """(P, C) means of the windows of one map, as networks without fc layers classify them."""
        pooled = F.avg_pool2d(maps, self.pooling.span, self.step)[0].flatten(1).T
        return pooled if places is None else pooled[places]


def interleaved(maps: Tensor, offsets: int) -> Tensor:
    """(n² · B, K, h, w), offset after offset → (B, K, n h, n w).

    Place (n i + Δy, n j + Δx) is place (i, j) of offset (Δy, Δx).
    """
    _, channels, height, width = maps.shape
    parts = maps.view(offsets, offsets, -1, channels, height, width)
    spread = parts.permute(2, 3, 4, 0, 5, 1)  # B, K, h, Δy, w, Δx
    return spread.reshape(-1, channels, height * offsets, width * offsets)


def fitting_sides(backbone: Backbone) -> tuple[int, int]:
    """The sides of inputs that all offsets fill alike, without a pixel left over.

    They are first, first + step, ...: 245 + 36 k for the accurate network, as all published sides
    are (table 5; ORIGINAL_FACTS, 3.3).
    """
    pooling = OffsetPooling.of(backbone)
    # cells before the last pooling
    cells = (pooling.grid - 1) * pooling.stride + pooling.kernel + pooling.stride - 1
    first = 1
    while backbone.map_side(first) < cells:
        first += 1
    return first, pooling.stride * backbone.field.stride
