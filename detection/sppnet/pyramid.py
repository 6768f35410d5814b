"""The spatial pyramid over a whole map (SPP-net, sections 2.2 and 2.3)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.errors import UserError

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
