"""The views of an image that a classifier is tested on, and the mean of their scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.backbones.backbone import Backbone
from detection.data.samples import Sample, as_image, as_pixels
from detection.data.transforms import PLACES, crop_at
from detection.errors import UserError

Pixels: TypeAlias = NDArray[np.uint8]


class ViewKind(Protocol):
    """One kind of views."""

    def bind(self, side_px: int, backbone: Backbone) -> int:
        """Fill in what the config left open; the shorter side that is needed of an image."""
        ...

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """Views (h, w, 3) of an (H, W, 3) image; their number is the same for every image."""
        ...

    def read(self, classifier: Any, views: Tensor) -> Tensor:
        """(B, C) scores of (B, 3, h, w) views of one size."""
        ...


class CropViews:
    """Crops of an image whose shorter side was scaled.

    Args:
        resize_px: to so much; None: as in training.
        crop_px: side of the crops; None: of the network's inputs.
        places: names of `PLACES`.
        flip: each crop mirrored too.
        square: places are those of the central square (Krizhevsky et al. 2012), not of the whole
            image (SPP-net, footnote 1).
    """

    def __init__(
        self,
        *,
        resize_px: int | None = None,
        crop_px: int | None = None,
        places: Sequence[str] = ("centre",),
        flip: bool = False,
        square: bool = False,
    ) -> None:
        unknown = [p for p in places if p not in PLACES]
        if unknown or not places:
            raise UserError(f"views: places {unknown} are unknown; choose of {', '.join(PLACES)}")
        self.options = (resize_px, crop_px)
        self.places, self.flip, self.square = list(places), flip, square

    def bind(self, side_px: int, backbone: Backbone) -> int:
        """See `ViewKind`."""
        resize_px, crop_px = self.options
        self.resize_px, self.crop_px = resize_px or side_px, crop_px or backbone.input_px
        if self.crop_px > self.resize_px:
            raise UserError(
                f"views: a crop of {self.crop_px} does not fit a side of {self.resize_px} pixels "
                "(model.side_px)"
            )
        backbone.check_input(self.crop_px, "views: crop_px")
        return self.resize_px

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """The crops, then their mirror images."""
        image = with_shorter_side(pixels, self.resize_px)
        image = central_square(image) if self.square else image
        crops = [crop_at(image, place, self.crop_px, self.crop_px) for place in self.places]
        return mirrored(crops, self.flip)

    def read(self, classifier: Any, views: Tensor) -> Tensor:
        """Probabilities."""
        return classifier.scores(views)


class WholeViews:
    """The whole image, its shorter side scaled, its aspect kept (SPP-net, 3.1).

    Args:
        resize_px: length of the shorter side; None: as in training.
        flip: mirrored too.
    """

    def __init__(self, *, resize_px: int | None = None, flip: bool = False) -> None:
        self.option, self.flip = resize_px, flip

    def bind(self, side_px: int, backbone: Backbone) -> int:
        """See `ViewKind`."""
        self.resize_px = self.option or side_px
        backbone.check_input(self.resize_px, "views: resize_px")
        return self.resize_px

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """One view, or two."""
        return mirrored([with_shorter_side(pixels, self.resize_px)], self.flip)

    def read(self, classifier: Any, views: Tensor) -> Tensor:
        """Probabilities."""
        return classifier.scores(views)


class ViewSet:
    """Several kinds of views; an image's scores are the mean over all its views.

    It is the transform of a classifier: it makes the views in the loader's workers.

    Args:
        kinds: by name; None switches one off.
    """

    batch_size: int = 16

    def __init__(self, kinds: Mapping[str, ViewKind | None]) -> None:
        self.kinds = [kind for kind in kinds.values() if kind is not None]
        if not self.kinds:
            raise UserError("views: at least one kind of views is needed")
        self.decode_px: int | None = None

    def bind(self, side_px: int, backbone: Backbone) -> None:
        """Fill in what the config left open; a classifier does so when it is made.

        Args:
            side_px: shorter side of training images.
            backbone: whose inputs the views are.
        """
        self.decode_px = max(kind.bind(side_px, backbone) for kind in self.kinds)

    def __call__(self, sample: Sample) -> Sample:
        """The sample with its views in place of its image."""
        pixels = as_pixels(sample.image)
        views = [[as_image(view) for view in kind(pixels)] for kind in self.kinds]
        return replace(sample, image=sample.image.new_empty(3, 0, 0), views=views)

    def scores(self, classifier: Any, images: Sequence[Sequence[Sequence[Tensor]]]) -> Tensor:
        """(B, C) mean scores; views of one kind and size go through the network together.

        Args:
            classifier: a `Classifier`, whose scores.
            images: of each image, of each kind, the (3, h, w) views.
        """
        total: list[Tensor | None] = [None] * len(images)
        counts = [sum(len(views) for views in kinds) for kinds in images]
        for number, kind in enumerate(self.kinds):
            by_size: dict[tuple[int, ...], list[tuple[int, Tensor]]] = defaultdict(list)
            for image, kinds in enumerate(images):
                for view in kinds[number]:
                    by_size[tuple(view.shape)].append((image, view))
            for of_size in by_size.values():
                scores = kind.read(classifier, torch.stack([view for _, view in of_size]))
                for (image, _), score in zip(of_size, scores, strict=True):
                    before = total[image]
                    total[image] = score if before is None else before + score
        sums = [t for t in total if t is not None]
        return torch.stack([t / n for t, n in zip(sums, counts, strict=True)])


def centre_view() -> ViewSet:
    """One crop, of the centre."""
    return ViewSet({"crops": CropViews()})


def with_shorter_side(pixels: Pixels, side_px: int) -> Pixels:
    """An image scaled so that its shorter side is so long."""
    height, width = pixels.shape[:2]
    factor = side_px / min(height, width)
    return resized(
        pixels, max(side_px, round(height * factor)), max(side_px, round(width * factor))
    )


def central_square(pixels: Pixels) -> Pixels:
    """The square in an image's middle."""
    size = min(pixels.shape[:2])
    y, x = (round((side - size) / 2) for side in pixels.shape[:2])
    return pixels[y : y + size, x : x + size]


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """An image of another size, bilinear as in training; by areas where that would skip pixels."""
    much_smaller = 2 * height <= pixels.shape[0] or 2 * width <= pixels.shape[1]
    how = cv2.INTER_AREA if much_smaller else cv2.INTER_LINEAR
    scaled: Any = cv2.resize(pixels, (width, height), interpolation=how)
    return np.asarray(scaled, np.uint8)


def mirrored(views: list[Pixels], flip: bool) -> list[Pixels]:
    """Views, and their mirror images after them if wanted."""
    return [*views, *(view[:, ::-1] for view in views)] if flip else views
