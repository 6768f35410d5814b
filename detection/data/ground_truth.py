"""What detection data is made of: folders of annotations, objects, proposals."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from detection.data.voc.annotation import VOCAnnotation


class Proposals(Protocol):
    """Boxes of some images, by their number: (P, 4) float32."""

    name: str

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        """The boxes of an image."""
        ...


class GroundTruth(NamedTuple):
    """The objects of one image.

    Attributes:
        boxes: (N, 4) float32 half-open xyxy in pixels; N may be 0.
        labels: (N,) int64 in [0, C).
        difficult: (N,) bool.
    """

    boxes: Tensor
    labels: Tensor
    difficult: Tensor


class DetectionFolder(Protocol):
    """Images and annotations on disk, in whatever layout."""

    root: Path

    def split_ids(
        self, named: Mapping[str, str | None], fractions: Mapping[str, float], seed: int
    ) -> dict[str, list[str]]:
        """Image ids of "train", "val" and "test" (those that there are)."""
        ...

    def ids(self, name: str) -> list[str]:
        """Image ids of a list that the data has."""
        ...

    def classes(self, image_ids: list[str]) -> list[str]:
        """Names of the classes, for images of the data."""
        ...

    def image_path(self, image_id: str) -> Path:
        """The file of an image."""
        ...

    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image."""
        ...

    def is_exhaustive(self, image_id: str) -> bool:
        """Whether all objects of an image are annotated."""
        ...

    def is_annotated(self, name: str) -> bool:
        """Whether a split of this name has public annotations."""
        ...
