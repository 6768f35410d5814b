"""Training on whole images at several scales; their maps are kept as far as there is room."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.backbones.backbone import Backbone
from detection.data.module import DataModule
from detection.data.samples import Split, as_image, as_pixels
from detection.localization.images_stage import ImagesOptions, ShuffledImages, TrainingImage
from detection.localization.views import Frame, ScaledViews


@dataclass
class ViewedImage(TrainingImage):
    """An image at all scales.

    Attributes:
        mirrored: left to right.
        frames: where each view is from.
        views: (3, h, w) uint8 each; none where the maps are kept already.
    """

    mirrored: bool
    frames: list[Frame]
    views: list[Tensor]

    def move(self, device: torch.device) -> None:
        """See `TrainingImage.move`."""
        self.views = [view.to(device, non_blocking=True) for view in self.views]


@dataclass
class MapStore:
    """Maps of images, computed once while the convolutions stay as they are.

    Attributes:
        bytes_left: that may still be kept.
        kept: by image and whether it is mirrored.
    """

    bytes_left: int
    kept: dict[tuple[int, bool], tuple[list[Frame], list[Tensor]]] = field(default_factory=dict)

    def maps(self, image: ViewedImage, compute: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The maps (1, C, h, w) of an image, one a scale.

        Args:
            image: to be looked at.
            compute: from a view (3, h, w) to its map.
        """
        key = image.index, image.mirrored
        if key in self.kept:
            return self.kept[key][1]
        maps = [compute(view) for view in image.views]
        size = sum(m.numel() * m.element_size() for m in maps)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.kept[key] = image.frames, maps
        return maps


class TrainingViews(ShuffledImages):
    """Images of a split by their number and a seed; half of them mirrored.

    Args:
        split: see `ShuffledImages`.
        rows: see `ShuffledImages`.
        views: scales.
        flip: mirror half of them.
        store: whose images need not be decoded (by the process that trains; others cannot know).
    """

    def __init__(
        self, split: Split, rows: NDArray[np.int64], views: ScaledViews, flip: bool, store: MapStore
    ) -> None:
        super().__init__(split, rows)
        self.views, self.flip, self.store = views, flip, store

    def __getitem__(self, number_and_seed: tuple[int, int]) -> ViewedImage:
        number, seed = number_and_seed
        index, mirrored = int(self.rows[number]), bool(seed % 2) and self.flip
        if (index, mirrored) in self.store.kept:
            return ViewedImage(index, seed, mirrored, self.store.kept[index, mirrored][0], [])
        sample = self.split.sample(index, self.views.decode_px)
        pixels = self.views.views(as_pixels(sample.image), sample.size)
        views = [as_image(view[:, ::-1] if mirrored else view) for view in pixels]
        frames = [f._replace(mirrored=mirrored) for f in self.views.frames(sample.size)]
        return ViewedImage(index, seed, mirrored, frames, views)


@dataclass(frozen=True, kw_only=True)
class ViewsOptions(ImagesOptions):
    """How a stage learns from whole images, all their scales at a time; see `ImagesOptions` too.

    Attributes:
        sizes: scales to train on, from small to large; see `ScaledViews`.
        memory_gb: of maps kept between epochs, while the convolutions stay.
    """

    sizes: Sequence[Sequence[int] | int]
    memory_gb: float = 4.0


def training_views(
    data: DataModule,
    rows: NDArray[np.int64],
    backbone: Backbone,
    least_cells: int,
    options: ViewsOptions,
) -> TrainingViews:
    """The views of some training images of a data set.

    Args:
        data: to learn.
        rows: the training images to learn from.
        backbone: makes maps of the views.
        least_cells: that the smallest view's map has a side.
        options: how.
    """
    views = ScaledViews(options.sizes)
    views.bind(backbone, least_cells)
    # maps of convolutions that learn are of no use in the next epoch
    store = MapStore(0 if options.backpropagate else int(options.memory_gb * 2**30))
    return TrainingViews(data.split("train"), rows, views, options.flip, store)
