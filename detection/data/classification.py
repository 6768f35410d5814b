"""Classification: images with a label each, or with several classes side by side."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from detection.data.detection import SplitRequest, held_aside
from detection.data.image_index import ImageIndex, ImageListing, open_index
from detection.data.samples import Sample, Target, as_image
from detection.disk.images import image_size, read_image, read_reduced
from detection.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassificationSplit(Dataset[Sample]):
    """Some images of an index.

    Attributes:
        index: paths and labels, memory-mapped.
        rows: (N,) int64, which of them; None: all.
    """

    index: ImageIndex
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.index) if self.rows is None else len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    @property
    def multi_label(self) -> bool:
        """Whether an image may be of several classes."""
        return self.index.multi_label

    @property
    def cache(self) -> Path:
        """A folder for what is computed from these images."""
        return self.index.kept_in

    def row(self, index: int) -> int:
        """The row of the index that holds an image."""
        return index if self.rows is None else int(self.rows[index])

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.index.path(self.row(index))

    def image_id(self, index: int) -> str:
        """The path of an image below the data's folder."""
        return self.index.name(self.row(index))

    def target(self, index: int) -> Target:
        """`label` (), or `labels` (C,): 1 there, -1 not there, 0 not counted; perhaps `boxes`."""
        row = self.row(index)
        label = torch.from_numpy(np.asarray(self.index.labels[row], np.int64))
        target = {"labels" if self.multi_label else "label": label}
        if self.index.has_boxes:
            target["boxes"] = torch.from_numpy(self.index.boxes_of(row))
        return target

    def labels(self) -> NDArray[np.int64]:
        """(N,) labels of the images, or (N, C) of several classes."""
        every = np.asarray(self.index.labels, np.int64)
        return every if self.rows is None else every[self.rows]

    def box_counts(self) -> NDArray[np.int64]:
        """(N,) boxes of each image; 0 where the data has none."""
        counts = self.index.box_counts() if self.index.has_boxes else np.zeros(len(self.index), int)
        return counts if self.rows is None else counts[self.rows]

    def sample(self, index: int, decode_px: int | None = None) -> Sample:
        """See `Split.sample`."""
        path = self.path(index)
        pixels = read_image(path) if decode_px is None else read_reduced(path, decode_px)
        sample = Sample(as_image(pixels), self.target(index), self.image_id(index), index)
        if self.index.has_boxes and decode_px is not None:  # boxes are those of the whole
            width, height = image_size(path)
            sample.stored_px = (height, width)
        return sample


class ClassificationAnnotations:
    """Reads a listing of images and labels; it is indexed once, on disk."""

    def read(
        self, listing: ImageListing, request: SplitRequest, splits: Sequence[str]
    ) -> tuple[list[str], dict[str, ClassificationSplit]]:
        """Names of the classes, and the splits that are asked for.

        Where the data has no validation images, some are held aside from train, evenly spread over
        its classes.

        Raises:
            UserError: whatever is wrong with the folders and lists.
        """
        listed = {"val": request.val_images > 0, "train": True, "test": True}
        held = listed["val"] and "val" not in listing.splits
        made = {}
        for split in (s for s in splits if listed[s] and (s in listing.splits or held)):
            source = "train" if held and split == "val" else split
            index = open_index(request.cache, request.name, listing, source)
            made[split] = ClassificationSplit(index, chosen(split, len(index), request, held))
            if len(made[split]) == 0:
                del made[split]
                continue
            log.info(
                "%s %s: %d images, %d classes%s",
                request.name, split, len(made[split]), len(listing.class_names),
                boxes_text(made[split]),
            )  # fmt: skip
        if "train" in splits and "train" not in made:
            raise UserError(f"{listing.root} has no train images")
        return list(listing.class_names), made


def boxes_text(split: ClassificationSplit) -> str:
    """How many images have boxes, where the data is for localisation."""
    if not split.index.has_boxes:
        return ""
    counts = split.box_counts()
    return f", {np.count_nonzero(counts)} images with {counts.sum()} boxes"


def chosen(split: str, images: int, request: SplitRequest, held: bool) -> NDArray[np.int64] | None:
    """Which images of an index belong to a split; None: all."""
    rows = np.arange(images)
    if held and split in ("train", "val"):
        aside = held_aside(images, request.val_images)
        rows = aside if split == "val" else np.delete(rows, aside)
    elif split == "val":
        rows = spread(images, request.val_images)
    if request.limit is not None and len(rows) > request.limit:
        rows = rows[spread(len(rows), request.limit)]  # of every class
    return None if len(rows) == images else rows


def spread(images: int, most: int) -> NDArray[np.int64]:
    """At most this many of some images, evenly spread.

    >>> spread(5, 3).tolist(), spread(2, 3).tolist()
    ([0, 2, 4], [0, 1])
    """
    return np.linspace(0, images - 1, min(images, most)).astype(np.int64)
