"""What readers of COCO's and YOLO's formats share: named lists of images with their objects."""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from detection.data.voc.annotation import VOCAnnotation
from detection.data.voc.folder import split_ids
from detection.errors import UserError

log = logging.getLogger(__name__)

SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class ObjectLists(ABC):
    """Images of the lists "train", "val" and "test", or of one list that is split by itself.

    An image's id is its path without suffix, below the folder in which its list has its images;
    of two images with one id the second has its list's name before it.

    Args:
        root: the folder of the data.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images: dict[str, Path] = {}
        self.lists: dict[str, list[str]] = {}

    def add(self, name: str | None, file: str, path: Path) -> str:
        """Note an image of a list (None: of none); its id."""
        image_id = str(Path(file).with_suffix(""))
        if image_id in self.images:
            image_id = f"{name or 'again'}/{image_id}"
        if image_id in self.images:
            raise UserError(f"image {file} stands twice in list {name} of {self.root}")
        self.images[image_id] = path
        if name is not None:
            self.lists.setdefault(name, []).append(image_id)
        return image_id

    @abstractmethod
    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image."""

    def classes(self, image_ids: Sequence[str]) -> list[str]:
        """Names of all classes in some images, in alphabetical order."""
        return sorted({o.name for i in image_ids for o in self.annotation(i).objects})

    def is_exhaustive(self, image_id: str) -> bool:
        """All objects of an image are annotated: what is not is background."""
        return True

    def is_annotated(self, name: str) -> bool:
        """Every list has annotations."""
        return True

    def split_ids(
        self, named: Mapping[str, str | None], fractions: Mapping[str, float], seed: int
    ) -> dict[str, list[str]]:
        """As of a folder in VOC's layout."""
        return split_ids(self, named, fractions, seed)

    def annotated(self) -> list[str]:
        """Ids of all images."""
        return sorted(self.images)

    def image_path(self, image_id: str) -> Path:
        """The file of an image."""
        return self.images[image_id]

    def ids(self, name: str) -> list[str]:
        """The ids of a list."""
        if name not in self.lists:
            known = ", ".join(self.lists) or "none"
            raise UserError(f"{self.root} has no list {name}; lists there: {known}")
        return self.lists[name]


def split_of(path: str) -> str | None:
    """Which split the name of a file or folder speaks of, if any.

    >>> split_of("annotations/instances_val2017.json"), split_of("Valid"), split_of("constrain")
    ('val', 'val', None)
    """
    words = re.findall("[a-z]+", path.lower())
    for split, names in SPLIT_WORDS.items():
        if any(name in words for name in names):
            return split
    return None
