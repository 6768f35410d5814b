"""How a localiser looks at an image: whole at some scales, or one crop; and back to the image."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from torch import Tensor

from detection.backbones.backbone import Backbone
from detection.boxes import flip
from detection.classification.views import Pixels, resized
from detection.data.samples import Sample, Transform, as_image, as_pixels
from detection.data.transforms import crop_at
from detection.errors import UserError


class Frame(NamedTuple):
    """Where a view is from.

    Attributes:
        scale: of x and y, from the original to the view.
        corner: x and y of the view's corner in the scaled image.
        size: height and width of the view.
        mirrored: left to right.
    """

    scale: tuple[float, float]
    corner: tuple[float, float]
    size: tuple[int, int]
    mirrored: bool

    def to_view(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) of the original in the view; they may leave it."""
        moved = boxes * boxes.new_tensor(self.scale * 2) - boxes.new_tensor(self.corner * 2)
        return flip(moved, self.size[1]) if self.mirrored else moved

    def to_original(self, boxes: Tensor) -> Tensor:
        """Boxes (N, 4) of the view in the original."""
        boxes = flip(boxes, self.size[1]) if self.mirrored else boxes
        return (boxes + boxes.new_tensor(self.corner * 2)) / boxes.new_tensor(self.scale * 2)


class LocalizerViews(Transform, Protocol):
    """How a localiser looks at an image."""

    def settings(self) -> tuple[object, ...]:
        """All that the views depend on; members of an ensemble have the same."""
        ...


class ScaledViews:
    """Whole images at several scales, or the centre crop of one; each perhaps mirrored too.

    Args:
        sizes: height and width of landscape images (portraits are turned), as in OverFeat's table
            5, or lengths of the shorter side, the longer following.
        flip: each view mirrored too.
        crop: only the crop of the network's size in the middle of each (its shorter side is scaled
            to it where the view is smaller).
    """

    batch_size: int = 4

    def __init__(
        self, sizes: Sequence[Sequence[int] | int], *, flip: bool = False, crop: bool = False
    ) -> None:
        pairs = [size if isinstance(size, list | tuple) else (size, size) for size in sizes]
        if not pairs or not all(
            len(p) == 2 and all(type(s) is int and s > 0 for s in p) for p in pairs
        ):
            raise UserError(
                f"sizes={sizes}: give pairs of height and width, such as [[245, 245]], or lengths "
                "of the shorter side, such as [256]"
            )
        self.sizes = list(sizes)
        self.flip, self.crop = flip, crop
        # of pairs the longer: an image of another shape is stretched to them
        self.decode_px: int | None = max(max(pair) for pair in pairs)
        self.least_px = self.input_px = 1

    def bind(self, backbone: Backbone, least_cells: int) -> None:
        """Learn the network's size.

        Raises:
            UserError: a scale is too small for one window.
        """
        self.input_px = backbone.input_px
        self.least_px = backbone.least_side(least_cells)
        for size in self.sizes:
            if self.shorter(size) < self.least_px:
                raise UserError(
                    f"scales.sizes: a scale of {self.shorter(size)} pixels is too small for a "
                    f"window of this network, which needs {self.least_px} a side"
                )

    @staticmethod
    def shorter(size: Sequence[int] | int) -> int:
        """The shorter side of a scale."""
        return size if isinstance(size, int) else min(size)

    def settings(self) -> tuple[object, ...]:
        """All that its views depend on."""
        return (self.sizes, self.flip, self.crop, self.input_px)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its views, all of one kind, in place of its image."""
        views = [as_image(view) for view in self.views(as_pixels(sample.image), sample.size)]
        nothing = sample.image.new_empty(3, 0, 0)
        return replace(sample, image=nothing, views=[views], stored_px=sample.size)

    def views(self, pixels: Pixels, stored: tuple[int, int]) -> list[Pixels]:
        """Views (h, w, 3) of an (H, W, 3) image; each scale is followed by its mirror image.

        Args:
            pixels: of the image, or of a smaller one of it.
            stored: height and width of the original, which says the views' sizes.
        """
        found = []
        for size in self.sizes:
            view = resized(pixels, *self.size(size, stored))
            if self.crop:
                view = crop_at(view, "centre", self.input_px, self.input_px)
            found += [view, view[:, ::-1]] if self.flip else [view]
        return found

    def frames(self, size: tuple[int, int]) -> list[Frame]:
        """Where the views of an image of some height and width are from, in the same order."""
        found = []
        for wanted in self.sizes:
            height, width = self.size(wanted, size)
            scale, corner = (width / size[1], height / size[0]), (0.0, 0.0)
            shape = (height, width)
            if self.crop:
                corner = (
                    float(round((width - self.input_px) / 2)),
                    float(round((height - self.input_px) / 2)),
                )
                shape = (self.input_px, self.input_px)
            mirrors = [False, True] if self.flip else [False]
            found += [Frame(scale, corner, shape, mirrored) for mirrored in mirrors]
        return found

    def size(self, wanted: Sequence[int] | int, shape: Sequence[int]) -> tuple[int, int]:
        """Height and width to which an image of some height and width is scaled."""
        least = max(self.least_px, self.input_px if self.crop else 1)
        if isinstance(wanted, int):
            factor = max(wanted, least) / min(shape)
            height, width = (max(least, round(side * factor)) for side in shape)
        else:
            low, high = sorted(wanted)
            height, width = (high, low) if shape[0] > shape[1] else (low, high)
        return max(height, least), max(width, least)


def check_scaled(views: object) -> None:
    """Check that a method which looks at whole images or one crop is given such views.

    Raises:
        UserError: they are of another method.
    """
    if not isinstance(views, ScaledViews):
        raise UserError("scales=squares and squares_one_map are for object scoring")


class SideBySide:
    """The views of a localiser, and after them those of the classifier that names the classes."""

    def __init__(self, own: LocalizerViews, other: Transform) -> None:
        self.own, self.other = own, other
        sides = (own.decode_px, other.decode_px)
        self.decode_px = None if None in sides else max(side for side in sides if side)
        self.batch_size = own.batch_size

    def __call__(self, sample: Sample) -> Sample:
        """The sample with both; the first kind of views is the localiser's."""
        own, other = self.own(sample), self.other(sample)
        return replace(own, views=[*own.views, *other.views])
