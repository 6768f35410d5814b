"""Tiny ImageNet's own layout."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from detection.data.folders.class_folders import ClassFolders
from detection.errors import UserError

log = logging.getLogger(__name__)

Box: TypeAlias = tuple[float, float, float, float]


class TinyImageNet(ClassFolders):
    """`train/<wnid>/images/*.JPEG`, `val/images/*.JPEG` with `val/val_annotations.txt`.

    The test images have no public labels: val is tested on.

    Args:
        root: `tiny-imagenet-200`, or a part of it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, test=("val",), inside="images")
        self.list = root / "val" / "val_annotations.txt"
        words = read_words(root / "words.txt")
        self.words = [words.get(wnid, wnid) for wnid in self.class_folders]

    @property
    def class_names(self) -> list[str]:
        """The first word of each class."""
        return self.words

    def fingerprint(self, split: str) -> str:
        """Of val: its list's time."""
        if split == "train":
            return super().fingerprint(split)
        if not self.list.is_file():
            raise UserError(f"{self.list} is missing: it tells the classes of the val images")
        return f"{self.class_folders} {self.list.stat().st_mtime_ns}"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """Of val: as its list has them."""
        if split == "train":
            yield from super().entries(split)
            return
        label = {wnid: n for n, wnid in enumerate(self.class_folders)}
        for number, line in enumerate(self.list.read_text(encoding="utf-8").splitlines(), 1):
            name, wnid, *_ = [*line.split("\t"), "", ""]
            if not name or not wnid:
                raise UserError(f"{self.list} line {number}: an image and its class are wanted")
            if wnid not in label:
                raise UserError(f"{self.list} line {number}: class {wnid} is not in train")
            yield f"val/images/{name}", label[wnid]


def read_words(path: Path) -> dict[str, str]:
    """Wnid → its first word, from lines such as `n01440764<tab>tench, Tinca tinca`."""
    if not path.is_file():
        return {}
    pairs = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {wnid: words.split(",")[0] for wnid, words in pairs}


class TinyImageNetLoc(TinyImageNet):
    """The same, with the box of each image: `train/<wnid>/<wnid>_boxes.txt`, `val_annotations.txt`.

    Corners count from 0 and are inclusive. Boxes of no area (a width or height of one pixel) are
    dropped, and reported.
    """

    def fingerprint(self, split: str) -> str:
        """See `TinyImageNet.fingerprint`; with the times of the lists of boxes."""
        lists = [self.folders["train"] / w / f"{w}_boxes.txt" for w in self.class_folders]
        times = [f.stat().st_mtime_ns for f in lists if split == "train" and f.is_file()]
        return f"{super().fingerprint(split)} {times}"

    def entries(self, split: str) -> Iterator[tuple[str, int, list[Box]]]:  # type: ignore[override]
        """See `TinyImageNet.entries`; with boxes."""
        boxes: dict[str, Box] = {}
        if split == "train":
            for wnid in self.class_folders:
                file = self.folders["train"] / wnid / f"{wnid}_boxes.txt"
                boxes |= read_boxes(file, first=1)
        else:
            boxes = read_boxes(self.list, first=2)
        dropped = []
        for path, label in super().entries(split):
            box = boxes.get(path.rpartition("/")[2])
            if box and min(box[2] - box[0], box[3] - box[1]) <= 1:
                dropped.append(path)
                box = None
            yield path, label, [box] if box else []
        if dropped:
            log.warning(
                "%s: %d boxes have no area and are left out, such as that of %s",
                self.root, len(dropped), dropped[0],
            )  # fmt: skip


def read_boxes(file: Path, first: int) -> dict[str, Box]:
    """Image → its half-open box, from lines whose corners begin at a column.

    Raises:
        UserError: the file is missing, or a line has no four numbers.
    """
    if not file.is_file():
        raise UserError(f"{file} is missing: it tells where the objects are")
    found = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("\t")
        try:
            x1, y1, x2, y2 = (float(word) for word in words[first : first + 4])
        except ValueError:
            raise UserError(
                f"{file} line {number}: the corners x1, y1, x2, y2 are wanted after the image"
            ) from None
        found[words[0]] = (x1, y1, x2 + 1, y2 + 1)
    return found
