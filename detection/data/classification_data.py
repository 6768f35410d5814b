"""The LightningDataModule of every classification data set."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import albumentations as A
import cv2
import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from detection.data.image_index import ImageIndex, ImageListing, open_index
from detection.data.samplers import ShardSampler, ShuffledBatches, ranks
from detection.disk.images import read_reduced

log = logging.getLogger(__name__)

Pixels: TypeAlias = NDArray[np.uint8]
Augmentation: TypeAlias = Any  # an albumentations.Compose
Labelled: TypeAlias = tuple[Tensor, Tensor]  # images (B, 3, S, S) uint8, labels (B,)


@dataclass
class Viewed:
    """An image as its views.

    Attributes:
        views: of each kind, (3, h, w) uint8 tensors, perhaps of several sizes.
        label: an index, or 1, 0, -1 for each class.
        row: in the index.
    """

    views: list[list[Tensor]]
    label: Tensor
    row: int


class Views(Protocol):
    """From an image to its views."""

    decode_px: int  # the shorter side that is needed of an image

    def __call__(self, pixels: Pixels) -> list[list[Pixels]]:
        """Views of each kind."""
        ...


class ClassificationData(pl.LightningDataModule):
    """Images and labels of "train" and "test".

    Args:
        name: what a person calls the data; part of the names of its caches.
        source: makes sure that the data is on disk, and gives its folder; called with `root`.
        layout: lists that folder; called with it.
        root: the user's own folder, or None for the source's.
        augmentation: of training images that were scaled; gives squares of one size. None where
            nothing is trained.
        crops_per_image: so many augmented squares of an image in a batch, decoded once.
        mirror_too: and each of them mirrored.
        side_px: the shorter side that images are scaled to; much larger JPEGs are decoded at a
            part of their size.
        val_images: at most so many test images are looked at after each epoch, or part of one.
        num_workers: processes that decode images, for each process that trains.
        cache: folder of the indices.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Callable[[str | None], Path],
        layout: Callable[[Path], ImageListing],
        root: str | None,
        augmentation: Augmentation = None,
        crops_per_image: int,
        mirror_too: bool,
        side_px: int,
        val_images: int,
        num_workers: int,
        cache: str,
    ) -> None:
        super().__init__()
        self.name: str = name
        self.source = source
        self.layout = layout
        self.root = root
        self.augmentation = augmentation
        self.crops_per_image = crops_per_image
        self.mirror_too = mirror_too
        self.side_px = side_px
        self.val_images = val_images
        self.num_workers = num_workers
        self.cache = Path(cache)
        self.indices: dict[str, ImageIndex] = {}
        self.class_names: list[str] = []

    def read(self, splits: Sequence[str] = ("train", "val", "test")) -> None:
        """Open the indices, and fit what the augmentation learns from the data.

        Raises:
            UserError: whatever is wrong with the folders and lists.
        """
        listing = self.layout(self.source(self.root))
        self.class_names = list(listing.class_names)
        for split in set(splits) & {"train", "test"}:  # validation looks at test images
            index = open_index(self.cache, self.name, listing, split)
            self.indices[split] = index
            log.info("%s %s: %d images, %d classes", self.name, split, len(index),
                     len(self.class_names))  # fmt: skip
        for transform in self.augmentation.transforms if "train" in splits else ():
            if hasattr(transform, "fit"):
                transform.fit(self.indices["train"])

    @property
    def squares_per_image(self) -> int:
        """Squares of each image in a batch."""
        return self.crops_per_image * (2 if self.mirror_too else 1)

    def train_loader(
        self, batch_size: int, seed: int, part: tuple[int, int] = (0, 1)
    ) -> DataLoader[Labelled]:
        """Augmented squares of all training images in random order: one epoch, all by the seed.

        Args:
            batch_size: squares in a batch, for each process; those of an image stay together, so
                it is the nearest multiple of their number.
            seed: the same for all processes.
            part: its number, and how many there are: only the batches of a part of the epoch.
        """
        index = self.indices["train"]
        images = max(1, round(batch_size / self.squares_per_image))
        return DataLoader(
            AugmentedImages(
                index, self.augmentation, self.crops_per_image, self.mirror_too, self.side_px
            ),
            batch_sampler=ShuffledBatches(len(index), images, seed, ranks(self.trainer), part),
            num_workers=self.num_workers,
            collate_fn=join_labelled,
            pin_memory=torch.cuda.is_available(),
        )

    def view_loader(
        self, split: str, views: Views, batch_size: int,
        most: int | None = None,
        shared: bool = True,
    ) -> DataLoader[list[Viewed]]:  # fmt: skip
        """The views of each image, in order; each process its own images.

        Args:
            split: "train" or "test".
            views: what to look at of each image.
            batch_size: images in a batch.
            most: only so many images, spread over the split; None for all.
            shared: each process takes its own images; False: all take all.
        """
        index = self.indices[split]
        count = len(index) if most is None else min(most, len(index))
        rows = np.linspace(0, len(index) - 1, count).astype(np.int64)
        return DataLoader(
            ViewedImages(index, rows, views),
            batch_size=batch_size,
            sampler=ShardSampler(count, *(ranks(self.trainer) if shared else (0, 1))),
            num_workers=self.num_workers,
            collate_fn=list,
        )


class AugmentedImages(Dataset[Labelled]):
    """Some augmented squares of an image, by its row and a seed; then their mirror images."""

    def __init__(
        self,
        index: ImageIndex,
        augmentation: Augmentation,
        count: int,
        mirror_too: bool,
        side_px: int,
    ) -> None:
        self.index, self.augmentation = index, augmentation
        self.count, self.mirror_too, self.side_px = count, mirror_too, side_px
        self.scale = A.SmallestMaxSize(side_px, interpolation=cv2.INTER_LINEAR)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, row_and_seed: tuple[int, int]) -> Labelled:
        row, seed = row_and_seed
        pixels = self.scale(image=read_reduced(self.index.path(row), self.side_px))["image"]
        self.augmentation.set_random_seed(seed)
        squares = [self.augmentation(image=pixels)["image"] for _ in range(self.count)]
        images = as_tensor(np.stack(squares))
        if self.mirror_too:
            images = torch.cat([images, images.flip(-1)])
        label = torch.tensor(int(self.index.labels[row]))
        return images, label.expand(len(images))


class ViewedImages(Dataset[Any]):
    """The views of some images."""

    def __init__(
        self,
        index: ImageIndex,
        rows: NDArray[np.int64],
        views: Views,
    ) -> None:
        self.index, self.rows, self.views = index, rows, views

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> Viewed:
        row = int(self.rows[place])
        views = self.views(read_reduced(self.index.path(row), self.views.decode_px))
        label = torch.from_numpy(np.asarray(self.index.labels[row], np.int64))
        return Viewed([[as_tensor(v) for v in some] for some in views], label, row)


def as_tensor(pixels: Pixels) -> Tensor:
    """(..., H, W, 3) → (..., 3, H, W); channels still lie last in memory, as networks want them."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, -3)


def join_labelled(items: list[Labelled]) -> Labelled:
    """The squares of several images as one batch."""
    images, labels = zip(*items, strict=True)
    return torch.cat(images), torch.cat(labels)
