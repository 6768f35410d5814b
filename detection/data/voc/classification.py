"""PASCAL VOC's images for classification: which of the 20 classes an image shows."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from detection.data.voc.folder import VOCFolder

THERE, NOT_COUNTED, ABSENT = 1, 0, -1  # as in ImageSets/Main/<class>_<split>.txt


class VOCClassification:
    """Labels from the objects' annotations: an image of difficult objects only is not counted.

    Args:
        root: holds `JPEGImages` and `Annotations`.
        classes: names in the order of their labels.
        train: name of the list to train on.
        test: of the list to test on.
    """

    def __init__(self, root: Path, *, classes: Sequence[str], train: str, test: str) -> None:
        self.folder = VOCFolder(root)
        self.root = root
        self.classes = list(classes)
        self.names = {"train": train, "test": test}

    @property
    def class_names(self) -> list[str]:
        """As given."""
        return self.classes

    @property
    def splits(self) -> tuple[str, ...]:
        """There is no list of validation images."""
        return ("train", "test")

    def fingerprint(self, split: str) -> str:
        """The list's images, and when each annotation was written."""
        ids = self.folder.ids(self.names[split])
        return f"{self.classes} {self.names[split]} {ids} {self.folder.changed(ids)}"

    def entries(self, split: str) -> Iterator[tuple[str, Sequence[int]]]:
        """1, 0 or -1 for each class."""
        for image_id in self.folder.ids(self.names[split]):
            objects = self.folder.annotation(image_id).objects
            plain = {o.name for o in objects if not o.difficult}
            hard = {o.name for o in objects}
            labels = [
                THERE if name in plain else NOT_COUNTED if name in hard else ABSENT
                for name in self.classes
            ]
            yield self.folder.image_path(image_id).relative_to(self.root).as_posix(), labels
