"""One image with what is known of it, and what every split of a data set offers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Target = dict[str, Tensor]
"""What is known of an image, by task. Detection: `boxes` (N, 4) float32 half-open xyxy in pixels of
the original image, `labels` (N,) int64 in [0, C), `difficult` (N,) bool. Classification: `label` ()
int64. Classes side by side: `labels` (C,) int64, 1 there, -1 not there, 0 not counted.
Localisation: `label` () int64, and `boxes` (N, 4) float32 of all objects of that class, half-open
xyxy in pixels of the original image; none where nobody drew any."""

NO_PROPOSALS = torch.zeros(0, 4)


@dataclass
class Sample:
    """An image, its target, and what a model's transform made of it.

    Attributes:
        image: (3, H, W) uint8, RGB; (3, 0, 0) where only its views are kept.
        target: see `Target`.
        image_id: names it in files and messages.
        index: its number in the split; the same in every process.
        proposals: (P, 4) boxes to look at, without the ground truth.
        views: of each kind, (3, h, w) uint8 tensors (test-time views of a classifier).
        stored_px: height and width of the original, where the image is a smaller one of it.
    """

    image: Tensor
    target: Target
    image_id: str
    index: int
    proposals: Tensor = field(default_factory=lambda: NO_PROPOSALS)
    views: list[list[Tensor]] = field(default_factory=list)
    stored_px: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the original in pixels, in which boxes are given."""
        return self.stored_px or (int(self.image.shape[1]), int(self.image.shape[2]))


class Split(Protocol):
    """The images of "train", "val" or "test"."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def path(self, index: int) -> Path:
        """The file of an image."""
        ...

    def image_id(self, index: int) -> str:
        """The name of an image."""
        ...

    def target(self, index: int) -> Target:
        """What is known of an image."""
        ...

    def sample(self, index: int, decode_px: int | None = None) -> Sample:
        """An image with its target.

        Args:
            index: of the image.
            decode_px: a shorter side of this length is enough: a much larger JPEG is decoded at a
                part of its size. None: as it is stored.
        """
        ...


class Transform(Protocol):
    """What a model makes of a sample in the loader's workers: its test-time views, its scaling."""

    decode_px: int | None
    """See `Split.sample`."""

    batch_size: int
    """Images that are looked at together."""

    def __call__(self, sample: Sample) -> Sample:
        """The transformed sample."""
        ...


class AsStored:
    """The transform of models that take images as they are."""

    decode_px: int | None = None
    batch_size: int = 1

    def __call__(self, sample: Sample) -> Sample:
        """The sample itself."""
        return sample


def as_image(pixels: NDArray[np.uint8]) -> Tensor:
    """(..., H, W, 3) → (..., 3, H, W); channels still lie last in memory, as networks want them."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)


def as_pixels(image: Tensor) -> NDArray[np.uint8]:
    """(..., 3, H, W) → (..., H, W, 3), the inverse of `as_image`."""
    return image.movedim(-3, -1).numpy()


def as_list(batch: Sequence[Sample]) -> list[Sample]:
    """The collate function of samples: images differ in size, so a batch is a list."""
    return list(batch)
