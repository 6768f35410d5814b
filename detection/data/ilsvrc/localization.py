"""ILSVRC's localisation data: the classification images, and boxes of about half a million."""

import logging
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from detection.data.ilsvrc.classification import FIRST_PIXEL, KAGGLE, KaggleCls
from detection.data.voc.annotation import read_annotation
from detection.data.voc.checks import checked_objects
from detection.errors import UserError

log = logging.getLogger(__name__)

BLACKLIST = "ILSVRC2014_clsloc_validation_blacklist.txt"
MOST_TOLD = 5  # warnings of single images


class KaggleLoc(KaggleCls):
    """The layout of Kaggle's challenge, with the boxes of `ILSVRC/Annotations/CLS-LOC`.

    An image's boxes are those of its label; its XML's size may be another than the JPEG's, and the
    boxes are scaled then. Val images on the blacklist have no boxes: they count for
    classification, as in the development kit, and not for localisation.

    Args:
        root: holds `ILSVRC` and `LOC_synset_mapping.txt`.
        blacklist: file of numbers of val images, of the development kit of 2014; None: the file of
            its name below the root, if it is there.

    Raises:
        UserError: the folder of annotations, or the blacklist that is named, is missing.
    """

    def __init__(self, root: Path, blacklist: str | None = None) -> None:
        super().__init__(root)
        self.annotations = root / KAGGLE / "Annotations" / "CLS-LOC"
        for folder in (self.annotations / "train", self.annotations / "val"):
            if not folder.is_dir():
                raise UserError(
                    f"folder {folder} is missing: it holds the boxes (LOC_*.csv alone will not do, "
                    "for they do not tell the sizes that boxes refer to)"
                )
        self.blacklist = self._find(blacklist)

    def _find(self, given: str | None) -> Path | None:
        if given is not None:
            path = Path(given).expanduser()
            if not path.is_file():
                raise UserError(f"data.layout.blacklist={given}: there is no such file")
            return path
        places = (self.root, self.root / KAGGLE, self.root / KAGGLE / "devkit" / "data")
        found = [place / BLACKLIST for place in places if (place / BLACKLIST).is_file()]
        if not found:
            log.warning(
                "%s is not below %s: all 50,000 val images count for localisation; the published "
                "figures leave 1,762 out (data.layout.blacklist=FILE)", BLACKLIST, self.root,
            )  # fmt: skip
        return found[0] if found else None

    def fingerprint(self, split: str) -> str:
        """The list's time, the blacklist's, and when annotations were last added to each folder.

        One that is edited in its place is not noticed: half a million would have to be asked.
        """
        train = [self.annotations / "train" / wnid for wnid in self.wnids]
        folders = train if split == "train" else [self.annotations / "val"]
        read = [p for p in (*folders, self.blacklist) if p and p.exists()]
        times = [p.stat().st_mtime_ns for p in read]
        return f"{super().fingerprint(split)} {times}"

    def entries(self, split: str) -> Iterator[tuple[str, int, list[tuple[float, ...]]]]:  # type: ignore[override]
        """See `KaggleCls.entries`; with boxes."""
        out = self.blacklisted() if split == "test" else set()
        warnings: list[str] = []
        for path, label in super().entries(split):
            # ILSVRC2012_val_00000001 is number 1, wherever it is listed
            number = Path(path).stem.rpartition("_")[2]
            listed = not (out and number.isdigit() and int(number) in out)
            yield path, label, self.boxes_of(split, path, label, warnings) if listed else []
        for text in warnings[:MOST_TOLD]:
            log.warning("%s", text)
        if len(warnings) > MOST_TOLD:
            log.warning("... and %d more boxes changed or dropped", len(warnings) - MOST_TOLD)

    def boxes_of(
        self, split: str, path: str, label: int, warnings: list[str]
    ) -> list[tuple[float, ...]]:
        """The boxes of an image's class; none where it has no annotation."""
        stem, wnid = Path(path).stem, self.wnids[label]
        if split == "train":
            if stem not in annotated(self.annotations / "train" / wnid):
                return []
            file = self.annotations / "train" / wnid / f"{stem}.xml"
        else:
            file = self.annotations / "val" / f"{stem}.xml"
        annotation = read_annotation(file, FIRST_PIXEL)
        try:
            things = checked_objects(annotation, self.root / path, "clip", warnings).objects
        except UserError as error:  # one of half a million: its image is learnt without a box
            warnings.append(f"{error}: its boxes are left out")
            return []
        return [thing.box for thing in things if thing.name == wnid]

    def blacklisted(self) -> set[int]:
        """Numbers of val images, from 1, that do not count.

        Raises:
            UserError: a line is no number.
        """
        if self.blacklist is None:
            return set()
        words = self.blacklist.read_text().split()
        for word in words:
            if not word.isdigit():
                raise UserError(f"{self.blacklist}: {word!r} is not the number of an image")
        return {int(word) for word in words}


@lru_cache(maxsize=2)  # images are listed class by class
def annotated(folder: Path) -> frozenset[str]:
    """Names of a class's annotated images: one look at the folder, not one an image."""
    return frozenset(p.stem for p in folder.glob("*.xml")) if folder.is_dir() else frozenset()
