"""Paths, labels and perhaps boxes of a data set's images as arrays on disk.

They are memory-mapped: 1.28 million images open at once, take 41 MB (and 15 MB for 600,000 boxes),
and cost no worker memory of its own.
"""

import hashlib
import logging
import os
import shutil
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detection.disk.files import read_json, write_json
from detection.errors import UserError
from detection.runtime.progress import progress

log = logging.getLogger(__name__)

ARRAYS = ("names", "ends", "folders", "labels", "boxes", "box_ends")
NAMES = "names.json"  # of folders and classes
UPDATE_EVERY = 1000  # entries between two moves of the progress bar

Label: TypeAlias = int | Sequence[int]
Box: TypeAlias = Sequence[float]
Entry: TypeAlias = tuple[str, Label] | tuple[str, Label, Sequence[Box]]


class ImageListing(Protocol):
    """Images on disk in whatever layout, with the labels of each."""

    root: Path

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of their labels."""
        ...

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that there are: "train" and "test", perhaps "val"."""
        ...

    def fingerprint(self, split: str) -> str:
        """Something cheap that changes when the images of a split do."""
        ...

    def entries(self, split: str) -> Iterator[Entry]:
        """Path below the root and label of each image of a split, and for localisation its boxes.

        The label is an index, or for images of several classes 1 (there), 0 (not counted) or
        -1 (not there) for each class. Boxes are those of the label, half-open xyxy in pixels of
        the image file; there may be none.
        """
        ...


@dataclass(frozen=True)
class ImageIndex:
    """The images of one split.

    Attributes:
        root: their folder.
        names: of all files, one after the other, in UTF-8.
        ends: (N,) uint32: where each name ends.
        folders: (N,) uint32: whose folder of `folder_names` holds the file.
        labels: (N,) int32, or (N, C) int8 for images of several classes.
        boxes: (M, 4) float32 of all images, one after the other.
        box_ends: (N,) uint32: where those of each image end; (0,) where the data has none.
        folder_names: paths below the root.
        class_names: in the order of the labels.
        kept_in: folder of the arrays.
    """

    root: Path
    names: NDArray[np.uint8]
    ends: NDArray[np.uint32]
    folders: NDArray[np.uint32]
    labels: NDArray[Any]
    boxes: NDArray[np.float32]
    box_ends: NDArray[np.uint32]
    folder_names: list[str]
    class_names: list[str]
    kept_in: Path

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, row: int) -> str:
        """Path of an image below the root."""
        start = int(self.ends[row - 1]) if row else 0
        file = bytes(self.names[start : int(self.ends[row])]).decode()
        return self.folder_names[int(self.folders[row])] + file

    def path(self, row: int) -> Path:
        """The file of an image."""
        return self.root / self.name(row)

    @property
    def multi_label(self) -> bool:
        """Whether an image may be of several classes."""
        return self.labels.ndim == 2

    @property
    def has_boxes(self) -> bool:
        """Whether the data says where objects are."""
        return len(self.box_ends) > 0

    def boxes_of(self, row: int) -> NDArray[np.float32]:
        """Boxes (n, 4) of an image's label; n may be 0."""
        start = int(self.box_ends[row - 1]) if row else 0
        return np.array(self.boxes[start : int(self.box_ends[row])])

    def box_counts(self) -> NDArray[np.int64]:
        """(N,) boxes of each image."""
        counts: NDArray[np.int64] = np.diff(self.box_ends.astype(np.int64), prepend=0)  # type: ignore[assignment]
        return counts


def open_index(cache: Path, name: str, listing: ImageListing, split: str) -> ImageIndex:
    """The index of a split, written on first use and whenever the images have changed.

    Args:
        cache: folder of caches.
        name: what a person calls the data.
        listing: what lists the images.
        split: one of those that the listing has.

    Raises:
        UserError: the split has no image, or the listing finds the layout wrong.
    """
    key = f"{ARRAYS} {listing.root.resolve()} {split} {listing.fingerprint(split)}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    folder = cache / "indices" / f"{name}-{split}-{digest}"
    if not (folder / NAMES).is_file():
        write_index(folder, listing, split)
    arrays = {a: np.load(folder / f"{a}.npy", mmap_mode="r") for a in ARRAYS}
    return ImageIndex(listing.root, **arrays, **read_json(folder / NAMES), kept_in=folder)


def write_index(folder: Path, listing: ImageListing, split: str) -> None:
    """List the images of a split once, and write what was found; appears whole or not at all."""
    blob, ends, folders, labels = bytearray(), [], [], []
    boxes, box_ends = array("f"), array("I")
    places: dict[str, int] = {}  # of folders
    with progress(f"indexing {split} images of {listing.root.name}", None) as advance:
        for path, label, *rest in listing.entries(split):
            parent, slash, name = path.rpartition("/")
            blob += name.encode()
            ends.append(len(blob))
            folders.append(places.setdefault(parent + slash, len(places)))
            labels.append(label)
            for found in rest:
                boxes.extend(corner for box in found for corner in box)
                box_ends.append(len(boxes) // 4)
            if len(ends) % UPDATE_EVERY == 0:
                advance(UPDATE_EVERY)
    if not ends:
        raise UserError(f"{listing.root} has no {split} images, or none with an annotated object")
    several = not isinstance(labels[0], int)
    arrays: dict[str, NDArray[Any]] = {
        "names": np.frombuffer(blob, np.uint8),
        "ends": np.array(ends, np.uint32),
        "folders": np.array(folders, np.uint32),
        "labels": np.array(labels, np.int8 if several else np.int32),
        "boxes": np.array(boxes, np.float32).reshape(-1, 4),
        "box_ends": np.array(box_ends, np.uint32),
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{os.getpid()}")
    unfinished.mkdir()
    try:
        for key, values in arrays.items():
            np.save(unfinished / f"{key}.npy", values)
        names = {"folder_names": list(places), "class_names": listing.class_names}
        write_json(unfinished / NAMES, names)
        unfinished.rename(folder)
    except OSError:
        if not (folder / NAMES).is_file():  # another process may have been first
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("index of %d %s images written to %s", len(ends), split, folder)
