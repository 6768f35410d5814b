"""The squares of a grid over an image, where object scoring looks."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from detection.errors import UserError

Frame = Literal["stretch", "inner", "outer"]


@dataclass(frozen=True)
class SquareGrid:
    """All squares of whole cells of an n×n grid: n (n + 1) (2n + 1) / 6, or 140 of 7×7.

    They are in the order of their sides, from one cell to the whole grid; those of a side row by
    row. Of a 2×2 grid::

        +---+---+      +-------+
        | 0 | 1 |      |       |
        +---+---+      |   4   |
        | 2 | 3 |      |       |
        +---+---+      +-------+

    Attributes:
        cells: n.
        frame: what the grid covers of an image that is no square. "stretch": the whole of it, with
            cells of the image's own shape; a network sees it stretched to a square. "inner": the
            largest square in its middle. "outer": the smallest square about it, in whose middle it
            lies; its border is repeated outside.

    Raises:
        UserError: there is no cell, or no such frame.

    >>> len(SquareGrid(7)), SquareGrid(2).corners().tolist()[3:]
    (140, [[1.0, 1.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    """

    cells: int = 7
    frame: Frame = "stretch"

    def __post_init__(self) -> None:
        if self.cells < 1:
            raise UserError(f"cells={self.cells}: a grid has at least one")
        if self.frame not in ("stretch", "inner", "outer"):
            raise UserError(f"frame={self.frame}: choose stretch, inner or outer")

    def __len__(self) -> int:
        return self.cells * (self.cells + 1) * (2 * self.cells + 1) // 6

    def sides(self) -> Tensor:
        """(K,) side of each square, in cells."""
        corners = self.corners()
        return corners[:, 2] - corners[:, 0]

    def corners(self) -> Tensor:
        """(K, 4) float32 xyxy of the squares, in cells."""
        rows = [
            [x, y, x + side, y + side]
            for side in range(1, self.cells + 1)
            for y in range(self.cells - side + 1)
            for x in range(self.cells - side + 1)
        ]
        return torch.tensor(rows, dtype=torch.float32)

    def mirrored(self) -> Tensor:
        """(K,) which square each one becomes where the image is mirrored left to right."""
        corners, n = self.corners().long(), self.cells
        x, y, side = corners[:, 0], corners[:, 1], corners[:, 2] - corners[:, 0]
        places = {
            key: k for k, key in enumerate(zip(side.tolist(), y.tolist(), x.tolist(), strict=True))
        }
        low = n - corners[:, 2]
        return torch.tensor(
            [places[key] for key in zip(side.tolist(), y.tolist(), low.tolist(), strict=True)]
        )

    def rectangle(self, size: tuple[int, int]) -> Tensor:
        """(4,) xyxy of what the grid covers, in pixels of an image of some height and width.

        >>> SquareGrid(7, "outer").rectangle((10, 30)).tolist()
        [0.0, -10.0, 30.0, 20.0]
        """
        height, width = size
        if self.frame == "stretch":
            return torch.tensor([0.0, 0.0, width, height])
        side = min(size) if self.frame == "inner" else max(size)
        x, y = (width - side) / 2, (height - side) / 2
        return torch.tensor([x, y, x + side, y + side])
