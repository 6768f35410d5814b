"""Detections as files that other programs read: PASCAL VOC's and COCO's formats."""

import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from detection.files import replacing, write_text


def write_detections(
    folder: Path, found: Tensor, image_ids: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write `comp4_det_test_<class>.txt` for each class, and `detections.json`.

    Scores and corners are not rounded, so that another evaluator finds the same order. Class
    after class, for there may be millions.

    Args:
        folder: of the files.
        found: (D, 7) double: image, label, score, half-open xyxy.
        image_ids: names of the images.
        class_names: names of the labels.
    """
    with replacing(folder / "detections.json") as temporary, temporary.open("w") as coco:
        separator = "[\n"
        for label, class_name in enumerate(class_names):
            lines = []
            for image, _, score, x1, y1, x2, y2 in found[found[:, 1] == label].tolist():
                name = image_ids[int(image)]
                # VOC's corners count from 1 and are inclusive
                lines.append(f"{name} {score!r} {x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}\n")
                row = {"image_id": name, "category_id": label + 1,
                       "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}  # fmt: skip
                coco.write(separator + json.dumps(row))
                separator = ",\n"
            safe = class_name.replace("/", "_")
            write_text(folder / f"comp4_det_test_{safe}.txt", "".join(lines))
        coco.write("[]\n" if separator == "[\n" else "\n]\n")
