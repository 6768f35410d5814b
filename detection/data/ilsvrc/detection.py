"""ILSVRC's detection data: 200 classes, val in two halves, and boxes from train (R-CNN, 4)."""

import logging
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from detection.data.ilsvrc.detection_layout import find_layout
from detection.data.ilsvrc.val_halves import Halves, val_halves
from detection.data.voc.annotation import VOCAnnotation, read_annotation
from detection.disk.images import image_size
from detection.errors import UserError
from detection.runtime.progress import progress

log = logging.getLogger(__name__)

FIRST_PIXEL = 0  # corners count from 0 (those of VOC from 1)


@cache
def det_classes() -> dict[str, str]:
    """Wnid → name of the 200 classes, in the order of the devkit's ILSVRC_DET_ID."""
    text = (Path(__file__).parent / "detection_classes.txt").read_text(encoding="utf-8")
    words = [line.partition(" ") for line in text.splitlines()]
    return {wnid: name for wnid, _, name in words}


class ILSVRCDet:
    """A copy of ILSVRC DET. Ids of images are paths such as `val/ILSVRC2012_val_00000001`.

    Args:
        root: folder of the data (see `find_layout`).
        candidates: splits of val to search from (see `balanced_halves`).
        moves: of single images, in each.
        seed: of that search, and of which train boxes are taken.
        cache: folder in which what it found is kept.

    Attributes:
        figures: of itself, for `metrics.json`: how uneven val's halves are, once they are used.
    """

    def __init__(self, root: Path, *, candidates: int, moves: int, seed: int, cache: str) -> None:
        self.layout = find_layout(root)
        self.root = root
        self.search = (candidates, moves, seed)
        self.cache = Path(cache)
        self.taken: dict[str, set[int]] = {}  # train image → its objects that are used
        self.boxes_per_class = 0  # of train, at most
        self.figures: dict[str, float] = {}

    def classes(self, image_ids: list[str]) -> list[str]:
        """Names of the 200 classes, whichever images are used."""
        return list(det_classes().values())

    def is_exhaustive(self, image_id: str) -> bool:
        """Whether all objects are annotated: not in train, so that it has no negatives (4.3)."""
        return not image_id.startswith("train/")

    def is_annotated(self, name: str) -> bool:
        """Whether a split has public annotations."""
        return name != "test"

    def image_path(self, image_id: str) -> Path:
        """The JPEG of an id."""
        split, _, rest = image_id.partition("/")
        path = self.layout.images[split] / f"{rest}.JPEG"
        if not path.is_file():
            raise UserError(
                f"image {path} is listed but missing: restore it, or take it off its list"
            )
        return path

    def annotation(self, image_id: str) -> VOCAnnotation:
        """Objects of the 200 classes in an image; of test none are known.

        Corners are in pixels of the XML's own size of the image, which may differ from the JPEG's:
        they are scaled to the latter, as ImageNet asks.
        """
        split = image_id.partition("/")[0]
        if split not in self.layout.boxes:
            return VOCAnnotation(self.root, f"{image_id}.JPEG", 0, 0, [])
        path = self.xml_path(image_id)
        found = read_annotation(path, FIRST_PIXEL)
        names = det_classes()
        objects = [replace(o, name=names[o.name]) for o in found.objects if o.name in names]
        taken = self.taken.get(image_id)
        if taken is not None:
            objects = [o for n, o in enumerate(objects) if n in taken]
        if not objects:
            return replace(found, objects=objects)
        if found.width < 1 or found.height < 1:
            raise UserError(f"annotation {path}: <size> is {found.width}×{found.height}")
        width, height = image_size(self.image_path(image_id))
        moved = []
        for thing in objects:  # multiplied first, so that the image's edge stays exact
            x1, x2 = (x * width / found.width for x in thing.box[::2])
            y1, y2 = (y * height / found.height for y in thing.box[1::2])
            moved.append(replace(thing, box=(x1, y1, x2, y2)))
        return replace(found, width=width, height=height, objects=moved)

    def xml_path(self, image_id: str) -> Path:
        """The annotation of an image of train or val."""
        split, _, rest = image_id.partition("/")
        return self.layout.boxes[split] / f"{rest}.xml"

    def split_ids(
        self, named: Mapping[str, str | None], fractions: Mapping[str, float], seed: int
    ) -> dict[str, list[str]]:
        """Ids of "train", "val" and "test" by names such as `val1+train1000` (see `ids`).

        Args:
            named: the name for each of the three; None: `val1`, none and `val2`.
            fractions: not used: val has its halves.
            seed: not used.
        """
        names = {"train": named.get("train") or "val1", "test": named.get("test") or "val2"}
        if named.get("val"):
            names["val"] = str(named["val"])
        return {split: self.ids(name) for split, name in names.items()}

    def ids(self, name: str) -> list[str]:
        """Ids of some sets, joined by "+".

        `val` (without blacklisted images), its halves `val1` and `val2`, `test`, and `trainN`: up
        to N boxes of each class from train (4.3).
        """
        result = []
        for part in name.split("+"):
            number = re.fullmatch(r"train(\d+)", part)
            if number:
                result += self.train_boxes(int(number[1]))
            elif part in ("val1", "val2"):
                result += self.halves().ids[part == "val2"]
            elif part in ("val", "test"):
                result += self.whole(part)
            else:
                raise UserError(
                    f"data.splits names {part!r}; ILSVRC DET has val, val1, val2, test, and trainN "
                    "for up to N boxes a class of train, joined by +, such as val1+train1000"
                )
        return result

    def whole(self, name: str) -> list[str]:
        """All of val or test; of val without images on the blacklist, as R-CNN's authors did."""
        out = self.layout.blacklisted() if name == "val" else {}
        listed = self.layout.ids(name)
        kept = [f"{name}/{i}" for i, number in listed if number not in out]
        if len(kept) < len(listed):
            log.info("%d of %d val images are blacklisted", len(listed) - len(kept), len(listed))
        return kept

    @cache  # noqa: B019  (one copy of the data lives as long as the run)
    def halves(self) -> Halves:
        """val1 and val2: by lists of these names, if there are any, or by a search, done once."""
        given = self.given_halves()
        ids = [*given[0], *given[1]] if given else self.whole("val")
        annotations = {i: self.xml_path(i) for i in ids}
        val1 = set(given[0]) if given else None
        found = val_halves(annotations, val1, list(det_classes()), self.search, self.cache)
        self.figures |= found.figures()
        return found

    def given_halves(self) -> list[list[str]]:
        """Both halves without blacklisted images, if there are lists of them; else nothing.

        Raises:
            UserError: there is a list of one of them only.
        """
        there = [f for f in (self.layout.lists / f"val{n}.txt" for n in (1, 2)) if f.is_file()]
        if len(there) == 1:
            raise UserError(
                f"{there[0]} lists one half of val only: add the other's list, or take this one "
                "away to have the halves searched for"
            )
        val = set(self.whole("val")) if there else set()
        listed = [[f"val/{i}" for i, _ in self.layout.ids(f.stem)] for f in there]
        return [[i for i in half if i in val] for half in listed]

    def train_boxes(self, number: int) -> list[str]:
        """Ids of train images that hold up to this many boxes of each class; no others are used."""
        if self.taken and self.boxes_per_class != number:
            raise UserError(
                f"one run takes either {self.boxes_per_class} or {number} boxes a class of train: "
                "name one trainN in data.splits and in the stages' split"
            )
        self.taken, self.boxes_per_class = {}, number
        with progress("train annotations, by class", len(det_classes())) as advance:
            for label, (wnid, name) in enumerate(det_classes().items()):
                ids = self.layout.positives(label)
                order = np.random.default_rng([self.search[2], label]).permutation(len(ids))
                boxes_left = number
                for row in order:
                    if boxes_left == 0:
                        break
                    boxes_left -= self.take(f"train/{ids[row]}", name, boxes_left)
                if boxes_left == number:
                    log.warning("train shows no box of %s (%s)", name, wnid)
                advance(1)
        return sorted(self.taken)

    def take(self, image_id: str, name: str, boxes_left: int) -> int:
        """Use up to this many of an image's boxes of one class; how many there are."""
        path = self.xml_path(image_id)
        if not path.is_file():  # a few positives have no boxes
            return 0
        names = det_classes()
        known = [names[o.name] for o in read_annotation(path, FIRST_PIXEL).objects
                 if o.name in names]  # fmt: skip
        rows = [n for n, other in enumerate(known) if other == name][:boxes_left]
        if rows:
            self.taken.setdefault(image_id, set()).update(rows)
        return len(rows)
