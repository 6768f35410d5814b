"""Detection data in COCO's format: a JSON file for each split, and images."""

import json
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detection.data.folders.object_lists import ObjectLists, split_of
from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.disk.text import read_text
from detection.errors import UserError

log = logging.getLogger(__name__)

PARTS = ("images", "annotations", "categories")
DEPTH = 2  # folders below the root in which annotation files are looked for


class COCOFolder(ObjectLists):
    """Annotation files of COCO's form, as Roboflow, CVAT and Label Studio write them too.

    Crowds are difficult objects; a box that is missing is that of the polygons.

    Args:
        root: the folder of the data.
        train: annotation file, below the root or anywhere; None: found by its name
            (`annotations/instances_train2017.json`, `train/_annotations.coco.json`, ...).
        val: the same.
        test: the same.
        images: folder of the images; None: looked for beside the files, and in folders of the
            root that are called `images` or as the split.

    Raises:
        UserError: a file is missing or malformed, or images are.
    """

    def __init__(
        self,
        root: Path,
        train: str | None = None,
        val: str | None = None,
        test: str | None = None,
        images: str | None = None,
    ) -> None:
        super().__init__(root)
        self.objects: dict[str, VOCAnnotation] = {}
        given = {"train": train, "val": val, "test": test}
        files: dict[str | None, Path] = {
            split: found_at(root, file) for split, file in given.items() if file
        }
        self.unused: set[str] = set()
        missing: list[str] = []
        for name, path in (files or found_files(root)).items():
            self.read(name, path, images, missing)
        if missing:
            raise UserError(
                f"{len(missing)} images that annotation files of {root} list are not there, such "
                f"as {missing[0]}: name their folder with data.layout.images=, or take them off"
            )
        self.unused -= {o.name for known in self.objects.values() for o in known.objects}
        if self.unused:
            log.warning("%s: no object of %s: no classes", root, ", ".join(sorted(self.unused)))

    def read(self, split: str | None, file: Path, images: str | None, missing: list[str]) -> None:
        """Take in an annotation file."""
        content = read_content(file)
        names = {field(c, "id", file, "category"): str(field(c, "name", file, "category"))
                 for c in content["categories"]}  # fmt: skip
        rows: dict[Any, list[VOCObject]] = defaultdict(list)
        for number, row in enumerate(content["annotations"], start=1):
            where = f"annotation {number}"
            image, category = (field(row, k, file, where) for k in ("image_id", "category_id"))
            if category not in names:
                raise UserError(f"{file}: {where} is of category {category}, which is not listed")
            box = box_of(row, file, where)
            rows[image].append(VOCObject(names[category], box, difficult=bool(row.get("iscrowd"))))
        self.unused |= set(names.values())
        folders = image_folders(self.root, file, split, images)
        known = set()
        for row in content["images"]:
            name, key = (field(row, k, file, "image") for k in ("file_name", "id"))
            known.add(key)
            path = next((f / name for f in folders if (f / name).is_file()), None)
            if path is None:
                missing.append(f"{folders[0] / name} ({file.name})")
                continue
            image_id = self.add(split, name, path)
            size = (int(row.get("width") or 0), int(row.get("height") or 0))
            self.objects[image_id] = VOCAnnotation(file, name, *size, rows[key])
        strange = set(rows) - known
        if strange:
            raise UserError(f"{file}: annotations of image {min(strange, key=str)}, not listed")

    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image."""
        return self.objects[image_id]


def found_at(root: Path, file: str) -> Path:
    """A file that is named below the root, or anywhere."""
    for path in (root / file, Path(file).expanduser()):
        if path.is_file():
            return path
    raise UserError(f"annotation file {file} is missing, there and in {root}")


def found_files(root: Path) -> dict[str | None, Path]:
    """The annotation files of a folder, by split; one that names none is all the data.

    Raises:
        UserError: there is none, or two of one split.
    """
    found: dict[str | None, Path] = {}
    for depth in range(DEPTH + 1):
        for file in sorted(root.glob("*/" * depth + "*.json")):
            if not is_of_objects(file):
                continue
            split = split_of(str(file.relative_to(root)))
            if split in found:
                raise UserError(
                    f"{found[split]} and {file} may both hold the annotations of "
                    f"{split or 'all images'}: choose with data.layout.train=, .val=, .test="
                )
            found[split] = file
    if not found or (len(found) > 1 and None in found):
        raise UserError(
            f"{root}: found no annotation file of COCO's form for each split "
            f"({', '.join(str(f) for f in found.values()) or 'no .json'}): name them with "
            "data.layout.train=, .val=, .test="
        )
    return found


def is_of_objects(file: Path) -> bool:
    """Whether a JSON file speaks of images and objects; captions, keypoints and results do not."""
    if file.name.startswith(("instances", "_annotations")):
        return True
    text = file.read_text(errors="replace")
    return all(f'"{part}"' in text for part in PARTS)


def read_content(file: Path) -> dict[str, list[dict[str, Any]]]:
    """The content of an annotation file.

    Raises:
        UserError: it is no JSON, or lacks a part.
    """
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is not JSON: {error}") from None
    for part in PARTS:
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise UserError(f"{file} has no list {part!r}: it is not in COCO's format")
    return content  # type: ignore[no-any-return]


def field(row: dict[str, Any], name: str, file: Path, where: str) -> Any:
    """A value that must be there."""
    if not isinstance(row, dict) or row.get(name) is None:
        raise UserError(f"{file}: {where} has no {name!r}")
    return row[name]


def box_of(row: dict[str, Any], file: Path, where: str) -> tuple[float, float, float, float]:
    """The half-open box of an annotation."""
    box = row.get("bbox")
    try:
        if box:
            x, y, width, height = map(float, box)
            if min(width, height) < 0:
                raise UserError(f"{file}: {where} has a 'bbox' of a negative size, {box}")
            return x, y, x + width, y + height
        polygons = row["segmentation"]
        xs = [float(v) for polygon in polygons for v in polygon[0::2]]
        ys = [float(v) for polygon in polygons for v in polygon[1::2]]
        return min(xs), min(ys), max(xs), max(ys)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{file}: {where} has neither a 'bbox' of x, y, width, height nor polygons"
        ) from None


def image_folders(root: Path, file: Path, split: str | None, images: str | None) -> Sequence[Path]:
    """Where the images of an annotation file may lie, likeliest first."""
    if images is not None:
        return [root / images, Path(images).expanduser()]
    return list(dict.fromkeys(likely_folders(root, file, split)))


def likely_folders(root: Path, file: Path, split: str | None) -> Iterator[Path]:
    """Beside the file, then folders that are called as the split or `images`."""
    for base in (file.parent, root, root / "images"):
        yield base
        yield file.parent / "images"
        inside = sorted(base.iterdir()) if base.is_dir() else []
        yield from (p for p in inside if p.is_dir() and split and split_of(p.name) == split)
