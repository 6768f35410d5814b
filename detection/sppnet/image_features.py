"""Features of whole images as SPP-net computes them (SPP-net, sections 2 and 3)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.head import FullyConnected
from detection.backbones.windows import pool_windows
from detection.classification.classifier import ImageFeatures
from detection.errors import UserError
from detection.sppnet.features import pyramid_fc

Bins = Literal["adaptive", "paper"]


class SpatialPyramidPooling(nn.Module):
    """Max-pools a map of any size to a fixed number of bins.

    Args:
        levels: bins along a side, such as (6, 3, 2, 1).
        bins: "adaptive": bin i of n spans floor(i a / n) to ceil((i + 1) a / n), for any a;
            "paper": windows of ceil(a / n) cells, floor(a / n) apart, which does not give n bins
            for every a (n = 6 fails for a = 8, 9, 10, 11, 15, ...), and is refused there.
    """

    def __init__(self, levels: Sequence[int], bins: Bins = "adaptive") -> None:
        super().__init__()
        self.levels = tuple(sorted(levels, reverse=True))  # one order for all weights
        self.bins: Bins = bins

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W) → (B, sum of n², C), bins row by row, as `pool_windows` gives them."""
        pool = F.adaptive_max_pool2d if self.bins == "adaptive" else pool_as_in_paper
        return torch.cat([pool(maps, n).flatten(2) for n in self.levels], dim=2).transpose(1, 2)


def pool_as_in_paper(maps: Tensor, level: int) -> Tensor:
    """(B, C, H, W) → (B, C, n, n) by the paper's window and stride.

    Raises:
        UserError: these do not give n bins for the map's size.
    """
    sides = maps.shape[2:]
    window = tuple(math.ceil(a / level) for a in sides)
    stride = tuple(a // level for a in sides)
    for a, w, s in zip(sides, window, stride, strict=True):
        if s == 0 or (a - w) // s + 1 != level:
            raise UserError(
                f"the paper's pyramid has no level {level} on a map of side {a} "
                f"(window {w}, stride {s}): use bins='adaptive'"
            )
    return F.max_pool2d(maps, window, stride)


class PyramidFeatures(ImageFeatures):
    """A pyramid over the map of an image of any size.

    Args:
        backbone: makes the map.
        levels: (6, 3, 2, 1) or (4, 3, 2, 1) (section 3.1).
        bins: see `SpatialPyramidPooling`.
        hidden: outputs of fc6 and fc7 where the backbone has none (GoogLeNet, ResNet).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        levels: Sequence[int] = (6, 3, 2, 1),
        bins: Bins = "adaptive",
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = SpatialPyramidPooling(levels, bins)
        self.out_features = backbone.channels * sum(n * n for n in levels)
        self.sides = self.pyramid.levels
        self.least_cells = max(levels)
        self.hidden = hidden

    def fully_connected(self) -> FullyConnected:
        """fc6 on the pyramid, and fc7."""
        return pyramid_fc(self.backbone, self.pyramid.levels, self.hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, sum of n² · C), bins one after the other, as the detector's.

        Raises:
            UserError: a level has more bins than the map has cells.
        """
        if max(self.sides) > min(maps.shape[2:]):
            raise UserError(
                f"level {max(self.sides)} of the pyramid is larger than the map of {maps.shape[2]}"
                f"×{maps.shape[3]}: choose larger images, or smaller model.features.levels"
            )
        return self.pyramid(maps).flatten(1)

    def windows(self, grid: Tensor, cells: Tensor) -> Tensor:
        """See `ImageFeatures.windows`; of few cells the bins share some."""
        return pool_windows(grid, cells, self.sides).flatten(1)
