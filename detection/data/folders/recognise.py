"""What a folder probably holds, where it is not what was asked for."""

from itertools import islice
from pathlib import Path

from detection.disk.images import IMAGE_SUFFIXES

LOOKED_AT = 2000  # files, in a folder that may hold millions
ENOUGH = 2  # folders with images, to be classes


def suggestion(root: Path) -> str:
    """The choice of data= that would read a folder, as the end of a message; empty if none.

    Nothing is opened.
    """
    files = [p for p in islice(root.rglob("*"), LOOKED_AT) if p.is_file()]
    names = {p.name for p in files}
    inner = [p.parent for p in files if p.suffix == ".xml" and p.parent.name == "Annotations"]
    if inner and (inner[0].parent / "JPEGImages").is_dir():
        return f": data.root={inner[0].parent} has them"
    if any(name.endswith(("_annotations.coco.json", ".coco.json")) for name in names) or any(
        p.suffix == ".json" and p.parent.name == "annotations" for p in files
    ):
        return ": it looks like COCO's format, data=coco"
    labels = [
        p for p in files if p.suffix == ".txt" and p.parent.name in ("labels", "obj_train_data")
    ]
    if labels or "data.yaml" in names or any(p.parent.parent.name == "labels" for p in files):
        return ": it looks like YOLO's format, data=yolo"
    xml = next((p for p in files if p.suffix == ".xml"), None)
    if xml is not None:
        return (
            f": the annotations lie in {xml.parent}: move them to a folder Annotations, and the "
            "images to JPEGImages"
        )
    if sum(p.is_dir() and has_images(p) for p in islice(root.iterdir(), LOOKED_AT)) >= ENOUGH:
        return ": it looks like a folder for each class, data=image_folder (for classifiers)"
    return ""


def has_images(folder: Path) -> bool:
    """Whether a folder, or one below it, holds an image."""
    found = islice(folder.rglob("*"), LOOKED_AT)
    return any(p.suffix.lower() in IMAGE_SUFFIXES for p in found)
