"""What a model found in images of one's own, as files: a table, COCO's format, a page."""

import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from detection.disk.files import replacing, write_text
from detection.report.rendering import templates

CORNERS = ("x1", "y1", "x2", "y2")
CAPTION_ITEMS = 4  # classes in the caption of a thumbnail


@dataclass(frozen=True)
class Record:
    """What is kept of an image.

    Attributes:
        name: its path below the folder.
        width: in pixels, upright.
        height: in pixels, upright.
        found: class, score and half-open corners (none of a classifier) of each prediction, best
            first.
        error: why there is none.
    """

    name: str
    width: int = 0
    height: int = 0
    found: tuple[tuple[Any, ...], ...] = ()
    error: str = ""


def picture_of(name: str) -> str:
    """Name of the picture of an image: always a JPEG, never another's.

    >>> picture_of("a/b.jpg"), picture_of("a/b.png")
    ('a/b.jpg', 'a/b.png.jpg')
    """
    return name if PurePosixPath(name).suffix == ".jpg" else f"{name}.jpg"


def write_predictions(
    out: Path, records: Sequence[Record], class_names: Sequence[str], task: str, said: str
) -> None:
    """Write `predictions.csv`, of a detector `detections.json`, and `index.html`.

    Args:
        out: folder that has `thumbnails/`, and of a detector `pictures/`.
        records: of the images.
        class_names: in the order of their labels.
        task: "detection", "localization" (both have boxes) or "classification".
        said: how the predictions came about.
    """
    good = [record for record in records if not record.error]
    write_table(out / "predictions.csv", good, task)
    if task != "classification":
        write_coco(out / "detections.json", good, class_names)
    page = templates().get_template("predictions.html").render(
        title=out.name, subtitle=said, records=good, wrong=[r for r in records if r.error],
        counts=Counter(row[0] for record in good for row in record.found).most_common(),
        is_detection=task != "classification", picture_of=picture_of, caption=caption,
    )  # fmt: skip
    write_text(out / "index.html", page)


def write_table(path: Path, records: Sequence[Record], task: str) -> None:
    """A line a detection, or a line an image with a classifier's guesses."""
    with replacing(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        if task != "classification":
            writer.writerow(["image", "class", "score", *CORNERS])
            writer.writerows([r.name, *row] for r in records for row in r.found)
            return
        count = max((len(r.found) for r in records), default=0)
        writer.writerow(
            ["image", *(f"{k}_{n + 1}" for n in range(count) for k in ("guess", "score"))]
        )
        writer.writerows([r.name, *(v for row in r.found for v in row[:2])] for r in records)


def write_coco(path: Path, records: Sequence[Record], class_names: Sequence[str]) -> None:
    """COCO's format: images, categories, and annotations with a score.

    `annotations` alone is what COCO calls results.
    """
    number = {name: n for n, name in enumerate(class_names, start=1)}
    rows = [(image, row) for image, r in enumerate(records, start=1) for row in r.found]
    annotations = [
        {
            "id": n, "image_id": image, "category_id": number[name], "score": score,
            "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1), "iscrowd": 0,
        }
        for n, (image, (name, score, x1, y1, x2, y2)) in enumerate(rows, start=1)
    ]  # fmt: skip
    images = [
        {"id": n, "file_name": r.name, "width": r.width, "height": r.height}
        for n, r in enumerate(records, start=1)
    ]
    categories = [{"id": n, "name": name} for name, n in number.items()]
    content = {"images": images, "categories": categories, "annotations": annotations}
    write_text(path, json.dumps(content))


def caption(record: Record, is_detection: bool) -> str:
    """What a thumbnail says of its image."""
    if not is_detection:
        return ", ".join(f"{name} {score:.2f}" for name, score in record.found[:CAPTION_ITEMS])
    counts = Counter(row[0] for row in record.found).most_common()
    listed = ", ".join(f"{n} {name}" for name, n in counts[:CAPTION_ITEMS])
    more = len(counts) - CAPTION_ITEMS
    return (listed or "nothing") + (f", {more} more classes" if more > 0 else "")
