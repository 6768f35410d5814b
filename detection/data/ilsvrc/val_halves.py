"""The halves val1 and val2 of ILSVRC DET's val, and how even they are (R-CNN, section 4.1)."""

import hashlib
import logging
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from detection.data.ilsvrc.class_balance import Counts, SplitMask, balanced_halves, imbalance
from detection.data.voc.annotation import read_annotation
from detection.disk.files import read_json, write_json
from detection.runtime.progress import progress

log = logging.getLogger(__name__)

Search = tuple[int, int, int]  # candidates, moves and seed of `balanced_halves`


@dataclass(frozen=True)
class Halves:
    """Both halves of val.

    Attributes:
        ids: of val1 and of val2.
        imbalance: of each class, |a - b| / (a + b) of its objects.
    """

    ids: tuple[list[str], list[str]]
    imbalance: list[float]

    def figures(self) -> dict[str, float]:
        """Largest and median imbalance (4.1)."""
        return {
            "data/imbalance_largest": max(self.imbalance),
            "data/imbalance_median": float(np.median(self.imbalance)),
        }


def val_halves(
    annotations: Mapping[str, Path],
    val1: Set[str] | None,
    wnids: list[str],
    search: Search,
    cache: Path,
) -> Halves:
    """val1 and val2; tells the relative imbalance of the classes.

    What was found is kept, under a name that holds all it depends on: the annotations' sizes and
    times too.

    Args:
        annotations: XML file of each image of val.
        val1: the first half, where it is given; None: both are searched for.
        wnids: of the classes.
        search: how.
        cache: folder in which what was found is kept.

    Raises:
        UserError: an annotation is missing or malformed.
    """
    ids = list(annotations)
    known = (sorted(val1) if val1 is not None else None, search)
    key = [(i, str(path), stamp(path)) for i, path in annotations.items()]
    digest = hashlib.sha256(repr((known, key)).encode()).hexdigest()[:12]
    kept = cache / "halves" / f"ilsvrc_det-{digest}.json"
    if not kept.is_file():
        counts = count_objects(list(annotations.values()), wnids)
        first: SplitMask = (
            balanced_halves(counts, *search).first
            if val1 is None
            else np.array([i in val1 for i in ids], bool)
        )
        halves = [[ids[row] for row in np.flatnonzero(half)] for half in (first, ~first)]
        write_json(kept, {"halves": halves, "imbalance": imbalance(first, counts).tolist()})
    kept_halves = read_json(kept)
    one, two = kept_halves["halves"]
    found = Halves((one, two), kept_halves["imbalance"])
    largest, median = found.figures().values()
    log.info(
        "val1 %d images, val2 %d; relative imbalance of classes: largest %.1f%%, median %.1f%%",
        len(one), len(two), 100 * largest, 100 * median,
    )  # fmt: skip
    return found


def stamp(path: Path) -> tuple[int, int] | None:
    """Size and time of a file; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def count_objects(paths: list[Path], wnids: list[str]) -> Counts:
    """(I, C) objects of each class in each annotation."""
    label = {wnid: n for n, wnid in enumerate(wnids)}
    counts = np.zeros((len(paths), len(label)), np.int64)
    with progress("val annotations", len(paths)) as advance:
        for row, path in enumerate(paths):
            for thing in read_annotation(path).objects:
                if thing.name in label:
                    counts[row, label[thing.name]] += 1
            advance(1)
    return counts
