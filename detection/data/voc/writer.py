"""Writes annotations in PASCAL VOC's form: what `voc_annotation` reads."""

from pathlib import Path
from xml.etree import ElementTree

from detection.data.voc.annotation import VOCAnnotation, VOCObject


def annotation_xml(annotation: VOCAnnotation) -> bytes:
    """The XML text of an annotation; half-open boxes become 1-based inclusive ones."""
    root = ElementTree.Element("annotation")
    add(root, "filename", annotation.filename)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", annotation.width), ("height", annotation.height), ("depth", 3)):
        add(size, name, value)
    for thing in annotation.objects:
        add_object(root, thing)
    ElementTree.indent(root)
    return ElementTree.tostring(root)


def add_object(root: ElementTree.Element, thing: VOCObject) -> None:
    """Append one `<object>`."""
    node = ElementTree.SubElement(root, "object")
    add(node, "name", thing.name)
    add(node, "pose", thing.pose)
    for name in ("truncated", "difficult", "occluded"):
        add(node, name, int(getattr(thing, name)))
    box = ElementTree.SubElement(node, "bndbox")
    x1, y1, x2, y2 = thing.box
    for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
        add(box, name, f"{value:g}")


def add(parent: ElementTree.Element, name: str, value: object) -> None:
    """Append `<name>value</name>`."""
    ElementTree.SubElement(parent, name).text = str(value)


def write_lists(folder: Path, splits: dict[str, list[str]]) -> None:
    """Write `ImageSets/Main/<split>.txt` for each split."""
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for split, ids in splits.items():
        (lists / f"{split}.txt").write_text("".join(f"{i}\n" for i in ids))
