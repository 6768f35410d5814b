"""The reader of PASCAL VOC annotations: one XML file an image."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree import ElementTree

from detection.disk.text import read_xml_text
from detection.errors import UserError


@dataclass(frozen=True)
class Part:
    """A named part of an object, such as a person's head; its box is half-open."""

    name: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class VOCObject:
    """One annotated object. The box is half-open: x1 = xmin - 1, x2 = xmax."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    pose: str = "Unspecified"
    parts: list[Part] = field(default_factory=list)


@dataclass(frozen=True)
class VOCAnnotation:
    """All that a VOC annotation says of one image; `objects` may be empty (pure background).

    `width` and `height` are 0 where it does not say them, or says no number.
    """

    path: Path
    filename: str
    width: int
    height: int
    objects: list[VOCObject]


def read_annotation(path: Path, first_pixel: int = 1) -> VOCAnnotation:
    """One VOC annotation file.

    Args:
        path: of the XML file.
        first_pixel: the number of the first row and column: 1 in VOC, 0 in ILSVRC.

    Raises:
        UserError: the file is missing or malformed; names the file and the field.
    """
    if not path.exists():
        raise UserError(f"annotation {path} is missing: add it, or take the image off its list")
    try:
        root = ElementTree.fromstring(read_xml_text(path))
    except ElementTree.ParseError as error:
        raise UserError(
            f"annotation {path} is not well-formed XML ({error}): mend it, or take "
            "the image off its list"
        ) from None
    sides = ((root.findtext(f"size/{name}") or "").strip() for name in ("width", "height"))
    width, height = (int(float(side)) if is_number(side) else 0 for side in sides)
    objects = [
        moved(read_object(node, path, n), 1 - first_pixel)
        for n, node in enumerate(root.iterfind("object"), 1)
    ]
    return VOCAnnotation(path, (root.findtext("filename") or "").strip(), width, height, objects)


def moved(thing: VOCObject, pixels: int) -> VOCObject:
    """An object shifted right and down."""
    x1, y1, x2, y2 = thing.box
    box = (x1 + pixels, y1 + pixels, x2 + pixels, y2 + pixels)
    return thing if pixels == 0 else replace(thing, box=box)


def read_object(node: ElementTree.Element, path: Path, index: int) -> VOCObject:
    """One `<object>`; `index` counts from 1, for messages."""
    where = f"object {index}"
    name = (node.findtext("name") or "").strip()
    if not name:
        raise UserError(f"annotation {path}: {where} has no <name>")
    parts = [
        Part((part.findtext("name") or "").strip(), read_box(part, path, f"{where} part"))
        for part in node.iterfind("part")
    ]
    flags = {key: flag(node, key) for key in ("difficult", "truncated", "occluded")}
    pose = (node.findtext("pose") or "").strip() or "Unspecified"
    return VOCObject(
        name, read_box(node, path, f"{where} ({name})"), **flags, pose=pose, parts=parts
    )


def read_box(
    node: ElementTree.Element, path: Path, where: str
) -> tuple[float, float, float, float]:
    """A `<bndbox>` (1-based, inclusive) as a half-open box."""
    box = node.find("bndbox")
    if box is None:
        raise UserError(f"annotation {path}: {where} has no <bndbox>")
    x1, y1, x2, y2 = (number(box, k, path, where) for k in ("xmin", "ymin", "xmax", "ymax"))
    return x1 - 1, y1 - 1, x2, y2


def number(node: ElementTree.Element, field_name: str, path: Path, where: str = "") -> float:
    """The number in a field."""
    text = node.findtext(field_name)
    place = f"{where} <{field_name}>".strip()
    if text is None:
        raise UserError(f"annotation {path}: {place} is missing")
    if not is_number(text):
        raise UserError(f"annotation {path}: {place} is {text!r}, not a number")
    return float(text)


def is_number(text: str) -> bool:
    """Whether a text is a finite number.

    >>> is_number("3.5"), is_number("nan"), is_number("")
    (True, False, False)
    """
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False


def flag(node: ElementTree.Element, field_name: str) -> bool:
    """A mark of an object: a grade above 0 (KITTI's 0.37 of truncation) or a word for yes is true.

    Absent, empty, or any other word is false, as labelling programs write it.
    """
    text = (node.findtext(field_name) or "").strip().lower()
    return float(text) > 0 if is_number(text) else text in ("true", "yes")
