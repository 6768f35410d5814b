"""Any folder in VOC's layout read as localisation: what an image shows most, and where."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from detection.data.voc.annotation import VOCObject
from detection.data.voc.checks import checked_objects
from detection.data.voc.folder import VOCFolder
from detection.disk.arrays import fingerprint
from detection.disk.text import some

log = logging.getLogger(__name__)

NO_LISTS: Mapping[str, str | None] = {"train": None, "val": None, "test": None}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


class VOCLocalization:
    """Each image's label is its most frequent class, of equals the one that covers most.

    Its boxes are all objects of that class; other objects are clutter. Images without an object
    are left out, and reported.

    Args:
        root: holds `JPEGImages` and `Annotations`.
        lists: name of the list for "train", "val" and "test"; None finds one (see `split_ids`).
        fractions: of a stratified split, where the folder has no lists.
        seed: of that split.
    """

    def __init__(
        self,
        root: Path,
        lists: Mapping[str, str | None] = NO_LISTS,
        fractions: Mapping[str, float] = SHARES,
        seed: int = 0,
    ) -> None:
        self.root = root
        self.folder = VOCFolder(root)
        self.ids = self.folder.split_ids(lists, fractions, seed)

    @cached_property
    def class_names(self) -> list[str]:
        """All that are in the annotations, in alphabetical order."""
        return self.folder.classes(sorted({i for some in self.ids.values() for i in some}))

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that have images."""
        return tuple(split for split, ids in self.ids.items() if ids)

    def fingerprint(self, split: str) -> str:
        """The images, the classes, and when each annotation was written."""
        ids = self.ids[split]
        return f"{self.class_names} {fingerprint(ids)} {self.folder.changed(ids)}"

    def entries(self, split: str) -> Iterator[tuple[str, int, Sequence[tuple[float, ...]]]]:
        """Path, label, and boxes of the label."""
        labels = {name: label for label, name in enumerate(self.class_names)}
        empty, warnings = [], list[str]()
        for image_id in self.ids[split]:
            path = self.folder.image_path(image_id)
            known = self.folder.annotation(image_id)
            things = checked_objects(known, path, "clip", warnings).objects
            if not things:
                empty.append(image_id)
                continue
            name = main_class(things)
            boxes = [thing.box for thing in things if thing.name == name]
            yield path.relative_to(self.root).as_posix(), labels[name], boxes
        if empty:
            log.warning(
                "%d %s images of %s hold no object and are left out, such as %s",
                len(empty), split, self.root, empty[0],
            )  # fmt: skip
        if warnings:
            log.warning(
                "%d boxes or sizes are not taken as they stand: %s", len(warnings), some(warnings)
            )


def main_class(things: Sequence[VOCObject]) -> str:
    """The most frequent class; of equals the one whose objects have the largest area."""
    counts = Counter(thing.name for thing in things)
    areas: Counter[str] = Counter()
    for thing in things:
        x1, y1, x2, y2 = thing.box
        areas[thing.name] += (x2 - x1) * (y2 - y1)  # type: ignore[assignment]
    return max(sorted(counts), key=lambda name: (counts[name], areas[name]))
