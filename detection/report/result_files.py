"""Results as files that other programs read: detections in VOC's and COCO's formats, guesses."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from detection.disk.files import replacing, write_text


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


def write_guesses(
    folder: Path,
    table: dict[str, Tensor],
    confusion: Tensor,
    image_names: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Write `predictions.csv`, a line an image, and `confusion.csv`, a line a class.

    Args:
        folder: of the files.
        table: see `TopKErrors.table`.
        confusion: (K, K) images of each class by the class that they were taken for.
        image_names: of the table's rows.
        class_names: names of the labels.
    """
    count = table["guesses"].shape[1]
    heading = [f"{kind}_{n + 1}" for n in range(count) for kind in ("guess", "score")]
    columns = (table[name].tolist() for name in ("labels", "guesses", "scores"))
    with (
        replacing(folder / "predictions.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "class", *heading])
        for image, label, guesses, scores in zip(image_names, *columns, strict=True):
            pairs = zip(guesses, scores, strict=True)
            found = [value for guess, score in pairs for value in (class_names[guess], score)]
            writer.writerow([image, class_names[label], *found])
    with replacing(folder / "confusion.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class \\ taken for", *class_names])
        writer.writerows(
            [name, *row] for name, row in zip(class_names, confusion.tolist(), strict=True)
        )
