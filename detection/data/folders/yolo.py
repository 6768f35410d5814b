"""Detection data in YOLO's format: a text file of boxes for each image."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from detection.data.folders.object_lists import SPLIT_WORDS, ObjectLists, split_of
from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.disk.images import image_size, images_below, turn_of
from detection.disk.text import read_text
from detection.errors import UserError

log = logging.getLogger(__name__)

TOLERANCE = 0.01  # of a side, by which boxes may leave the image


class YOLOFolder(ObjectLists):
    """`data.yaml`, or `images` and `labels`, with or without folders for the splits.

    An image's boxes stand in the file of its name in the folder `labels` in place of `images`: a
    line an object, class number, then centre and size as shares of the image's sides, or the
    corners of a polygon. An empty file is an image of background.

    Args:
        root: the folder of the data.
        yaml: the file with the classes and the folders of the splits; None: `data.yaml` or the
            only .yaml there, if there is one.

    Raises:
        UserError: folders are missing, or classes have no names.
    """

    def __init__(self, root: Path, yaml: str | None = None) -> None:
        super().__init__(root)
        described = read_yaml(root, yaml)
        self.names = class_names(described, root)
        self.labels: dict[str, Path] = {}
        bare = 0
        for split, folder in folders_of(described, root).items():
            for path in images_below(folder):
                label = label_file(path)
                image_id = self.add(split, str(path.relative_to(folder)), path)
                self.labels[image_id] = label
                bare += not label.is_file()
        if not self.images:
            raise UserError(f"{root} holds no image: looked for folders `images` and `labels`")
        if bare == len(self.images):
            first = next(iter(self.labels.values()))
            raise UserError(f"no image of {root} has a label file: {first} is missing")
        if bare:
            log.warning("%d images of %s have no label file: background", bare, root)

    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image.

        Raises:
            UserError: a line is malformed; names the file and the line.
        """
        file, image = self.labels[image_id], self.images[image_id]
        if not file.is_file():
            return VOCAnnotation(file, image.name, 0, 0, [])
        lines = [(n, line.split()) for n, line in enumerate(read_text(file).splitlines(), 1)]
        width, height = shown_size(image) if any(words for _, words in lines) else (0, 0)
        objects = [self.read(words, (width, height), f"{file} line {n}")
                   for n, words in lines if words]  # fmt: skip
        return VOCAnnotation(file, image.name, width, height, objects)

    def read(self, words: Sequence[str], size: tuple[int, int], where: str) -> VOCObject:
        """One line."""
        try:
            number, values = int(words[0]), [float(word) for word in words[1:]]
        except ValueError:
            raise UserError(f"{where}: expected a class number and shares of the sides") from None
        if len(values) < 4 or len(values) % 2:
            raise UserError(f"{where}: {len(values)} numbers after the class: 4 are a box")
        if not all(-TOLERANCE <= value <= 1 + TOLERANCE for value in values):
            raise UserError(f"{where}: a number is outside 0 to 1, so it is no share of a side")
        if self.names is not None and not 0 <= number < len(self.names):
            raise UserError(f"{where}: class {number}, but there are {len(self.names)} names")
        if len(values) == 4:
            x, y, w, h = values
            low, high = (x - w / 2, y - h / 2), (x + w / 2, y + h / 2)
        else:  # a polygon
            low = (min(values[0::2]), min(values[1::2]))
            high = (max(values[0::2]), max(values[1::2]))
        box = (low[0] * size[0], low[1] * size[1], high[0] * size[0], high[1] * size[1])
        return VOCObject(str(number) if self.names is None else self.names[number], box)

    def classes(self, image_ids: Sequence[str]) -> list[str]:
        """The names in the order of their numbers; without names, the numbers that are there."""
        return super().classes(image_ids) if self.names is None else list(self.names)


def shown_size(image: Path) -> tuple[int, int]:
    """Width and height of a photograph as viewers show it, of which its boxes are shares."""
    width, height = image_size(image)
    return (height, width) if turn_of(image)[0] % 2 else (width, height)


def read_yaml(root: Path, name: str | None) -> dict[str, Any]:
    """The content of the data's own description; empty without one."""
    files = [root / name] if name else sorted(root.glob("*.yaml")) + sorted(root.glob("*.yml"))
    chosen = next((f for f in files if f.stem in ("data", "dataset")), files[0] if files else None)
    if chosen is None:
        return {}
    if not chosen.is_file():
        raise UserError(f"{chosen} is missing (data.layout.yaml=)")
    try:
        content = yaml.safe_load(read_text(chosen))
    except yaml.YAMLError as error:
        raise UserError(f"{chosen} is not YAML: {error}") from None
    if not isinstance(content, dict) or "names" not in content:
        raise UserError(f"{chosen} has no `names` of the classes")
    return content


def class_names(described: dict[str, Any], root: Path) -> list[str] | None:
    """Names in the order of their numbers, from the description or `classes.txt`."""
    names = described.get("names")
    if isinstance(names, dict):
        return [str(names[key]) for key in sorted(names, key=int)]
    if names:
        return [str(name) for name in names]
    for file in (root / "classes.txt", root / "labels" / "classes.txt", root / "obj.names"):
        if file.is_file():
            return [line.strip() for line in read_text(file).splitlines() if line.strip()]
    log.warning("%s names no classes (data.yaml, classes.txt): their numbers are their names", root)
    return None


def folders_of(described: dict[str, Any], root: Path) -> dict[str | None, Path]:
    """The folder of images of each split; of None where they are not split.

    Raises:
        UserError: a folder that the description names is missing.
    """
    found: dict[str | None, Path] = {}
    for split in SPLIT_WORDS:
        named = described.get(split) or (described.get("valid") if split == "val" else None)
        if isinstance(named, list):
            raise UserError(f"{root}: `{split}` of the .yaml names several folders: name one")
        if named:
            found[split] = named_folder(root, str(described.get("path") or ""), str(named))
    if found:
        return found
    inner = root / "images" if (root / "images").is_dir() else root
    for folder in (p for p in sorted(inner.iterdir()) if p.is_dir()):
        if own := split_of(folder.name):
            found[own] = folder / "images" if (folder / "images").is_dir() else folder
    return found or {None: inner}


def named_folder(root: Path, base: str, name: str) -> Path:
    """A folder as a description names it: below its own `path`, or, once moved, below the root."""
    bare = name.removeprefix("../").removeprefix("./")  # as Roboflow writes them
    for path in (Path(base) / name, root / name, root / bare, root / base / name):
        if path.is_dir():
            return path
    raise UserError(f"{root}: the .yaml names the folder {name}, which is not there")


def label_file(image: Path) -> Path:
    """Where an image's boxes stand: in `labels` for the last `images` of its path, or beside it.

    >>> label_file(Path("set/images/train/a.jpg")).as_posix()
    'set/labels/train/a.txt'
    """
    parts = list(image.parts)
    for place in range(len(parts) - 1, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).with_suffix(".txt")
