"""How the squares of a grid are scored: each as an image of its own, or all from one map."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detection.backbones.backbone import ReceptiveField
from detection.classification.classifier import Classifier
from detection.classification.views import Pixels, central_square, resized
from detection.data.samples import Sample, as_image, as_pixels
from detection.errors import UserError
from detection.localization.views import LocalizerViews
from detection.proposals.squares import Frame, SquareGrid


class SquareViews(LocalizerViews, Protocol):
    """What the grid covers of an image, and how its squares are scored there."""

    def bind(self, grid: SquareGrid, classifier: Classifier) -> None:
        """Learn the grid, and the network that scores.

        Raises:
            UserError: they do not go together.
        """
        ...

    def logits(self, classifier: Classifier, views: Sequence[Tensor]) -> Tensor:
        """(K, C) scores before softmax of the squares, from the views of an image."""
        ...


class _Frames:
    """Views of what the grid covers, each scaled to a square."""

    batch_size: int = 4

    def __init__(self, sizes: Sequence[int]) -> None:
        if not sizes or not all(type(size) is int and size > 0 for size in sizes):
            raise UserError(f"scales.sizes={list(sizes)}: give sides in pixels, such as [448]")
        self.sizes = list(sizes)
        self.decode_px: int | None = max(sizes)
        self.grid = SquareGrid()

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its views in place of its image."""
        pixels = as_pixels(sample.image)
        views = [as_image(framed(pixels, self.grid.frame, side)) for side in self.sizes]
        nothing = sample.image.new_empty(3, 0, 0)
        return replace(sample, image=nothing, views=[views], stored_px=sample.size)


class SquareCrops(_Frames):
    """Each square is an image of its own: 140 passes through the network (the poster's way).

    Args:
        sizes: [side in pixels] to which what the grid covers is scaled before it is cut up. The
            crops are then scaled to the network's size.
        crops_per_batch: that go through the network together.
    """

    def __init__(self, sizes: Sequence[int], *, crops_per_batch: int = 64) -> None:
        super().__init__(sizes)
        self.crops_per_batch = crops_per_batch

    def settings(self) -> tuple[object, ...]:
        """See `LocalizerViews.settings`."""
        return ("crops", self.sizes, self.grid)

    def bind(self, grid: SquareGrid, classifier: Classifier) -> None:
        """See `SquareViews.bind`; the side becomes a multiple of the grid's.

        Raises:
            UserError: there are several sizes.
        """
        if len(self.sizes) != 1:
            raise UserError(f"scales.sizes={self.sizes}: crops are cut from one picture")
        self.grid = grid
        self.sizes = [max(1, round(self.sizes[0] / grid.cells)) * grid.cells]
        self.decode_px = self.sizes[0]

    def logits(self, classifier: Classifier, views: Sequence[Tensor]) -> Tensor:
        """See `SquareViews.logits`."""
        backbone = classifier.features.backbone
        pixels = backbone.normalize(views[0])
        found = [
            classifier.logits(classifier.features(backbone.maps(some)))
            for side in range(1, self.grid.cells + 1)
            for some in self.crops(pixels, side, backbone.input_px).split(self.crops_per_batch)
        ]
        return torch.cat(found)

    def crops(self, pixels: Tensor, side: int, input_px: int) -> Tensor:
        """(m², 3, P, P), the squares of some cells a side, row by row, of a (3, S, S) picture."""
        cell = pixels.shape[1] // self.grid.cells
        cut = pixels.unfold(1, side * cell, cell).unfold(2, side * cell, cell)  # (3, m, m, s, s)
        squares = cut.permute(1, 2, 0, 3, 4).flatten(0, 1)
        size = (input_px, input_px)
        return F.interpolate(squares, size, mode="bilinear", align_corners=False, antialias=True)


class SquareMap(_Frames):
    """All squares are read from one map of the picture, pooled as the network pools an image's.

    Of several sizes each square is read at the one at which it is nearest in area to the network's
    input (as SPP-net's windows, 4.1).

    Args:
        sizes: sides in pixels to which what the grid covers is scaled.
    """

    def settings(self) -> tuple[object, ...]:
        """See `LocalizerViews.settings`."""
        return ("map", self.sizes, self.grid)

    def bind(self, grid: SquareGrid, classifier: Classifier) -> None:
        """See `SquareViews.bind`.

        Raises:
            UserError: a cell of the grid is smaller than the map's, so that squares look alike.
        """
        self.grid = grid
        backbone = classifier.features.backbone
        areas = [[(side / grid.cells * px) ** 2 for px in self.sizes]
                 for side in range(1, grid.cells + 1)]  # fmt: skip
        far = [[abs(area - backbone.input_px**2) for area in some] for some in areas]
        self.scale_of_side = [some.index(min(some)) for some in far]  # n
        least = grid.cells * backbone.field.stride
        size = min(self.sizes[scale] for scale in self.scale_of_side)
        if size < least:
            raise UserError(
                f"scales.sizes={self.sizes}: on a map of {size} pixels whose cells are "
                f"{backbone.field.stride} wide, squares of a {grid.cells}×{grid.cells} grid look "
                f"alike: {least} pixels are needed"
            )

    def logits(self, classifier: Classifier, views: Sequence[Tensor]) -> Tensor:
        """See `SquareViews.logits`."""
        backbone, features = classifier.features.backbone, classifier.features
        sides = self.grid.sides().long()
        scale = torch.tensor(self.scale_of_side)[sides - 1]  # (K,)
        pooled = views[0].new_empty(len(self.grid), features.out_features, dtype=torch.float32)
        for number, view in enumerate(views):
            mine = scale == number
            if not mine.any():
                continue
            maps = backbone.maps(backbone.normalize(view)[None])[0].permute(1, 2, 0)  # (h, w, C)
            corners = self.grid.corners()[mine] * (view.shape[1] / self.grid.cells)
            cells = cells_inside(corners, backbone.field, maps.shape[0])
            windows = features.windows(maps.float().contiguous(), cells.to(maps.device))
            pooled[mine.to(pooled.device)] = windows
        return classifier.logits(pooled)


def cells_inside(corners: Tensor, field: ReceptiveField, side: int) -> Tensor:
    """(K, 4) int64 xyxy, half-open: the cells of a map whose centres lie in squares (K, 4).

    Where there is none, the nearest. (SPP-net's windows also take the cell that their border cuts,
    on one side: a mirrored square would not read the mirrored cells.)

    Args:
        corners: xyxy in the picture's pixels.
        field: of the map.
        side: cells along the map's.
    """
    # the centre of cell i lies at start + i · stride, that of the first pixel at 0
    place = (corners.double() - 0.5 - field.start) / field.stride
    edges = torch.ceil(place - 1e-6).clamp(0, side)
    first, last = edges[:, :2], edges[:, 2:]
    nearest = ((place[:, :2] + place[:, 2:]) / 2).round().clamp(0, side - 1)
    empty = first >= last
    first, last = torch.where(empty, nearest, first), torch.where(empty, nearest + 1, last)
    return torch.cat([first, last], dim=1).long()


def framed(pixels: Pixels, frame: Frame, side_px: int) -> Pixels:
    """What a grid covers of an image (H, W, 3), scaled to a square (S, S, 3); see `SquareGrid`."""
    if frame == "stretch":
        return resized(pixels, side_px, side_px)
    if frame == "inner":
        return resized(central_square(pixels), side_px, side_px)
    factor = side_px / max(pixels.shape[:2])  # scaled before it is filled up: a strip stays small
    height, width = (max(1, round(length * factor)) for length in pixels.shape[:2])
    top, left = (side_px - height) // 2, (side_px - width) // 2
    filled = cv2.copyMakeBorder(
        resized(pixels, height, width), top, side_px - height - top, left, side_px - width - left,
        cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.asarray(filled, np.uint8)
