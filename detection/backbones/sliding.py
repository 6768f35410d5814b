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
