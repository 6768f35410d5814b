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
from detection.disk.text import read_text, some
from detection.errors import UserError

log = logging.getLogger(__name__)

ABSENT = "-1"  # in a class's list: the image shows none
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
        self.told: set[str] = set()  # lists of which something was told
        self.images = by_stem(root / "JPEGImages", IMAGE_SUFFIXES)
        self.xml = by_stem(root / "Annotations", (".xml",))
        self.without_annotations: dict[str, set[str]] = {}  # list → its ids
        self.lists = found_lists(root)

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
        return read_annotation(self.xml_path(image_id))

    def xml_path(self, image_id: str) -> Path:
        """The annotation file of an id."""
        return self.xml.get(image_id, self.root / "Annotations" / f"{image_id}.xml")

    def changed(self, image_ids: Sequence[str]) -> str:
        """Something that changes when an annotation of some images does."""
        files = [self.xml_path(i) for i in image_ids]
        stats = [f.stat() if f.is_file() else None for f in files]
        return fingerprint([(s.st_mtime_ns, s.st_size) if s else (0, 0) for s in stats])

    def ids(self, split: str) -> list[str]:
        """The image ids of `ImageSets/Main/<split>.txt`."""
        if split not in self.lists:
            known = ", ".join(sorted(self.lists)) or "none"
            raise UserError(
                f"{self.root}/ImageSets/Main/{split}.txt is missing; lists there: {known}"
            )
        lines = [line.strip() for line in read_text(self.lists[split]).split("\n")]
        ids, absent = [], 0
        for line in filter(None, lines):
            image_id, mark = (line, "") if line in self.images else listed(line)
            absent += mark == ABSENT
            if mark != ABSENT:
                ids.append(image_id)
        if absent and split not in self.told:
            self.told.add(split)
            log.info("%s is a class's list: %d images marked %s are not taken",
                     self.lists[split], absent, ABSENT)  # fmt: skip
        if not ids:
            raise UserError(f"{self.lists[split]} lists no image")
        missing = [i for i in ids if i not in self.images]
        if missing:
            raise UserError(
                f"{len(missing)} images of {self.lists[split]} are not in {self.root}/JPEGImages: "
                f"{some(missing)}: restore them, or take them off"
            )
        if not any(i in self.xml for i in ids):
            self.without_annotations[split] = set(ids)
            log.warning(
                "no image of %s has an annotation: detections can be saved, but not measured",
                self.lists[split],
            )
        return ids

    def annotated(self) -> list[str]:
        """Ids of all annotated images; images without an annotation are reported and left out."""
        ids = sorted(self.xml)
        missing = [i for i in ids if i not in self.images]
        if missing:
            raise UserError(
                f"{len(missing)} annotations of {self.root} have no image in JPEGImages: "
                f"{some(missing)}: restore the images, or take the annotations away"
            )
        bare = sorted(set(self.images) - set(ids))
        if bare and "" not in self.told:
            self.told.add("")
            log.warning(
                "%d images of %s have no annotation and are left out: %s (an image of pure "
                "background needs an XML file without objects)",
                len(bare),
                self.root,
                some(bare),
            )
        if not ids:
            raise UserError(f"{self.root}/Annotations holds no XML file")
        return ids


def by_stem(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder with some suffixes, in whatever case, by their name without it.

    Raises:
        UserError: two have one name.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UserError(f"{found[path.stem]} and {path} have one name: take one away")
        found[path.stem] = path
    return found


def found_lists(root: Path) -> dict[str, Path]:
    """The lists of images by name: those of `ImageSets/Main`, else what lies elsewhere.

    Lists of the splits are taken from `ImageSets` and from the folder itself where there are none
    in their place; what is not taken is told.
    """
    main = {path.stem: path for path in sorted((root / "ImageSets" / "Main").glob("*.txt"))}
    if main:
        return main
    others = [*sorted(root.glob("ImageSets/**/*.txt")), *sorted(root.glob("*.txt"))]
    names = ("train", "val", "test", "trainval")
    taken: dict[str, Path] = {}
    for path in (p for p in others if p.stem in names):
        taken.setdefault(path.stem, path)
    if taken:
        log.info("lists of images: %s", some(list(taken.values())))
    unused = [path for path in others if path not in taken.values()]
    if unused:
        log.warning("%s: not taken as lists of images, which stand in ImageSets/Main/train.txt, "
                    "val.txt, test.txt", some(unused))  # fmt: skip
    return taken


def listed(line: str) -> tuple[str, str]:
    """The image of a line, and its mark where it is a class's list: 1, 0 (difficult) or -1.

    >>> listed("000012  -1"), listed("000012"), listed("my cat")
    (('000012', '-1'), ('000012', ''), ('my cat', ''))
    """
    words = line.rsplit(maxsplit=1)
    if len(words) == 2 and words[1] in ("1", "0", ABSENT):
        return words[0], words[1]
    return line, ""


class Listed(Protocol):
    """A folder with named lists of images."""

    root: Path
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
        if list(fractions) == ["test"]:
            log.info("%s has no lists: all %d images are tested", folder.root, len(image_ids))
            return {"test": image_ids}
        labels = {i: [o.name for o in folder.annotation(i).objects] for i in image_ids}
        return stratified_split(labels, fractions, seed)
    chosen = {split: name for split, name in named.items() if name}
    for split, names in (("train", ("train", "trainval")), ("test", ("test", "val"))):
        found = next((name for name in names if name in folder.lists), None)
        if split not in chosen and found:
            chosen[split] = found
    ids = {split: folder.ids(name) for split, name in chosen.items()}
    if "val" not in chosen and "val" in folder.lists and chosen.get("test") != "val":
        listed_val = folder.ids("val")
        if set(listed_val).isdisjoint(ids.get("train", ())):  # val.txt is a part of trainval.txt
            ids["val"] = listed_val
    warn_of_overlap(ids)
    return ids


def warn_of_overlap(ids: Mapping[str, Iterable[str]]) -> None:
    """Tell of images that are trained on and tested on."""
    for split in ("val", "test"):
        both = set(ids.get("train", ())) & set(ids.get(split, ()))
        if both:
            log.warning(
                "%d images are both in train and in %s, e.g. %s", len(both), split, min(both)
            )
