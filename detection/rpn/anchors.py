"""Anchors: boxes of some sizes and shapes about every cell of a map (Ren et al. 2015, 3.1.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.backbones.backbone import ReceptiveField
from detection.errors import UserError


@dataclass(frozen=True)
class Anchors:
    """Boxes of equal area for each size, one of each shape.

    Centres are those of the cells' receptive fields, computed from the layers, and not multiples of
    the stride: a network whose padding is not symmetric sees off the middle. (The authors' release
    starts at the corner, and rounds widths before it scales them.)

    Attributes:
        sizes_px: sides of the squares whose areas the anchors have, in pixels of the input.
        ratios: of height to width.
    """

    sizes_px: Sequence[float]
    ratios: Sequence[float] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        if not self.sizes_px or min(self.sizes_px) <= 0:
            raise UserError(f"anchors.sizes_px={list(self.sizes_px)}: give some lengths in pixels")
        if not self.ratios or min(self.ratios) <= 0:
            raise UserError(f"anchors.ratios={list(self.ratios)}: give some ratios above 0")

    def __len__(self) -> int:
        """A, about each cell."""
        return len(self.sizes_px) * len(self.ratios)

    def shapes(self) -> Tensor:
        """(A, 4) about the origin: size after size, each ratio."""
        found = []
        for size in self.sizes_px:
            for ratio in self.ratios:
                width, height = size / ratio**0.5, size * ratio**0.5
                found.append([-width / 2, -height / 2, width / 2, height / 2])
        return torch.tensor(found)

    def boxes(self, field: ReceptiveField, cells: Sequence[int]) -> Tensor:
        """(h · w · A, 4) half-open xyxy in pixels of the input, cell after cell, row by row.

        Args:
            field: of the map's cells.
            cells: height and width of the map.

        >>> anchors = Anchors([32], [1.0])
        >>> anchors.boxes(ReceptiveField(stride=16, size=1, start=7.5), (1, 2)).tolist()
        [[-8.0, -8.0, 24.0, 24.0], [8.0, -8.0, 40.0, 24.0]]
        """
        height, width = cells
        centre = [field.start + 0.5 + field.stride * torch.arange(side) for side in (height, width)]
        y, x = (c.float() for c in torch.meshgrid(centre[0], centre[1], indexing="ij"))
        places = torch.stack([x, y, x, y], dim=-1)  # (h, w, 4)
        return (places[:, :, None] + self.shapes()).reshape(-1, 4)
