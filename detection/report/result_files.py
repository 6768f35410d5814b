"""Detections as files that other programs read: PASCAL VOC's and COCO's formats."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from detection.files import write_json, write_text


def write_detections(
    folder: Path, found: Tensor, image_ids: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write `comp4_det_test_<class>.txt` for each class, and `detections.json`.

    Scores and corners are not rounded, so that another evaluator finds the same order.

    Args:
        folder: of the files.
        found: (D, 7) double: image, label, score, half-open xyxy.
        image_ids: names of the images.
        class_names: names of the labels.
    """
    lines: list[list[str]] = [[] for _ in class_names]
    coco = []
    for image, label, score, x1, y1, x2, y2 in found.tolist():
        name = image_ids[int(image)]
        # VOC's corners count from 1 and are inclusive
        lines[int(label)].append(f"{name} {score!r} {x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}\n")
        box = [x1, y1, x2 - x1, y2 - y1]
        coco.append({"image_id": name, "category_id": int(label) + 1, "bbox": box, "score": score})
    for name, text in zip(class_names, lines, strict=True):
        safe = name.replace("/", "_")
        write_text(folder / f"comp4_det_test_{safe}.txt", "".join(text))
    write_json(folder / "detections.json", coco)
