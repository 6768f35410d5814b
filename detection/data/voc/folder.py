"""A folder in PASCAL VOC's layout: which images it has, how they are split, what is in them."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from detection.data.folders.recognise import suggestion
from detection.data.splits import stratified_split
from detection.data.voc.annotation import VOCAnnotation, read_annotation
from detection.disk.arrays import fingerprint
from detection.disk.images import IMAGE_SUFFIXES
from detection.errors import UserError

log = logging.getLogger(__name__)

EXPORTED = "default"  # CVAT's list of all images that it exports


class VOCFolder:
    """`JPEGImages` + `Annotations`, with or without `ImageSets/Main/*.txt`.

    Args:
        root: the folder that holds them.

    Raises:
        UserError: the folder or one of the two sub-folders is missing.
    """

    def __init__(self, root: Path) -> None:
        for folder in (root, root / "JPEGImages", root / "Annotations"):
            if not folder.is_dir():
                raise UserError(
                    f"folder {folder} is missing: data.root= must name a folder that holds "
                    f"JPEGImages and Annotations{suggestion(root) if root.is_dir() else ''}"
                )
        self.root = root
        self.images = {
            path.stem: path
            for path in sorted((root / "JPEGImages").iterdir())
            if path.suffix.lower() in IMAGE_SUFFIXES
        }
        self.without_annotations: dict[str, set[str]] = {}  # list → its ids
        self.lists = {path.stem: path for path in (root / "ImageSets" / "Main").glob("*.txt")}

    def classes(self, image_ids: Sequence[str]) -> list[str]:
        """Names of all classes in some images, in alphabetical order."""
        return sorted({o.name for i in image_ids for o in self.annotation(i).objects})

    def is_exhaustive(self, image_id: str) -> bool:
        """Whether all objects of an image are annotated: what is not is background."""
        return True

    def is_annotated(self, name: str) -> bool:
        """Whether a list's images have annotations: those of VOC's later tests are not public."""
        return name not in self.without_annotations

    def split_ids(
        self, named: Mapping[str, str | None], fractions: Mapping[str, float], seed: int
    ) -> dict[str, list[str]]:
        """See the function of this name."""
        return split_ids(self, named, fractions, seed)

    def image_path(self, image_id: str) -> Path:
        """The image file of an id, whatever its suffix."""
        if image_id not in self.images:
            raise UserError(
                f"image {image_id} is listed or annotated, but {self.root}/JPEGImages holds no "
                "such file: restore it, or take the id off its list"
            )
        return self.images[image_id]

    def annotation(self, image_id: str) -> VOCAnnotation:
        """The annotation of an image; empty for one of a list that has none at all."""
        if any(image_id in ids for ids in self.without_annotations.values()):
            return VOCAnnotation(self.image_path(image_id), image_id, 0, 0, [])
        return read_annotation(self.root / "Annotations" / f"{image_id}.xml")

    def changed(self, image_ids: Sequence[str]) -> str:
        """Something that changes when an annotation of some images does."""
        files = (self.root / "Annotations" / f"{i}.xml" for i in image_ids)
        return fingerprint([f.stat().st_mtime_ns if f.is_file() else 0 for f in files])

    def ids(self, split: str) -> list[str]:
        """The image ids of `ImageSets/Main/<split>.txt`."""
        if split not in self.lists:
            known = ", ".join(sorted(self.lists)) or "none"
            raise UserError(
                f"{self.root}/ImageSets/Main/{split}.txt is missing; lists there: {known}"
            )
        lines = self.lists[split].read_text().split("\n")
        ids = [line.split()[0] for line in lines if line.strip()]
        if not ids:
            raise UserError(f"{self.lists[split]} lists no image")
        for image_id in ids:
            self.image_path(image_id)
        if not any((self.root / "Annotations" / f"{i}.xml").is_file() for i in ids):
            self.without_annotations[split] = set(ids)
            log.warning(
                "no image of %s has an annotation: detections can be saved, but not measured",
                self.lists[split],
            )
        return ids

    def annotated(self) -> list[str]:
        """Ids of all annotated images; images without an annotation are reported and left out."""
        ids = sorted(path.stem for path in (self.root / "Annotations").glob("*.xml"))
        for image_id in ids:
            self.image_path(image_id)
        bare = sorted(set(self.images) - set(ids))
        if bare:
            shown = ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else "")
            log.warning(
                "%d images of %s have no annotation and are left out: %s (an image of pure "
                "background needs an XML file without objects)",
                len(bare),
                self.root,
                shown,
            )
        if not ids:
            raise UserError(f"{self.root}/Annotations holds no XML file")
        return ids


class Listed(Protocol):
    """A folder with named lists of images."""

    lists: Any

    def annotated(self) -> list[str]:
        """Ids of all annotated images."""
        ...

    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image."""
        ...

    def ids(self, name: str, /) -> list[str]:
        """Ids of a list."""
        ...


def split_ids(
    folder: Listed,
    named: Mapping[str, str | None],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, list[str]]:
    """Image ids of "train", "val" and "test" (those that there are).

    Args:
        folder: the data.
        named: for each of the three, the list to take, or None to find one: the list of that
            name; without `test.txt`, `val.txt` is the test set, for which training never looks. A
            `val.txt` that is found is not taken where its images are trained on.
        fractions: shares of a stratified split, made where the folder has no lists of splits.
        seed: of that split.
    """
    if not any(named.values()) and (not folder.lists or list(folder.lists) == [EXPORTED]):
        image_ids = folder.annotated()
        if folder.lists:
            listed = set(folder.ids(EXPORTED))
            image_ids = [i for i in image_ids if i in listed]
            log.info("%s.txt lists all images: they are split by themselves", EXPORTED)
        labels = {i: [o.name for o in folder.annotation(i).objects] for i in image_ids}
        return stratified_split(labels, fractions, seed)
    chosen = {split: name for split, name in named.items() if name}
    if "train" not in chosen:
        chosen["train"] = first_of(("train", "trainval"), folder)
    if "test" not in chosen:
        chosen["test"] = first_of(("test", "val"), folder)
    ids = {split: folder.ids(name) for split, name in chosen.items()}
    if "val" not in chosen and "val" in folder.lists and chosen["test"] != "val":
        found = folder.ids("val")
        if set(found).isdisjoint(ids["train"]):  # val.txt is a part of trainval.txt
            ids["val"] = found
    warn_of_overlap(ids)
    return ids


def first_of(names: Sequence[str], folder: Listed) -> str:
    """The first of some lists that the folder has; the first of all where it has none."""
    return next((name for name in names if name in folder.lists), names[0])


def warn_of_overlap(ids: Mapping[str, Iterable[str]]) -> None:
    """Tell of images that are trained on and tested on."""
    for split in ("val", "test"):
        both = set(ids["train"]) & set(ids.get(split, ()))
        if both:
            log.warning(
                "%d images are both in train and in %s, e.g. %s", len(both), split, min(both)
            )
