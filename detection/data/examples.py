"""What a classifier is trained on: augmented crops of whole images."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from detection.data.classification import ClassificationSplit
from detection.data.samples import as_image
from detection.data.transforms import PCALighting
from detection.disk.images import read_reduced
from detection.errors import UserError
from detection.runtime.distributed import rank, world_size

Transform: TypeAlias = Any  # albumentations has no types
Labelled: TypeAlias = tuple[Tensor, Tensor]
"""Crops (B, 3, S, S) uint8 and their labels (B,)."""


class Examples(Protocol):
    """What crops of a split a classifier learns from."""

    @property
    def has_background(self) -> bool:
        """Whether some show no object; their label is -1."""
        ...

    def of(self, split: ClassificationSplit, side_px: int, input_px: int) -> "LabelledCrops":
        """The crops of a split.

        Args:
            split: to train on; what a transform learns from images (`PCALighting`) is learnt here.
            side_px: shorter side that images are scaled to.
            input_px: side of the crops.
        """
        ...


@dataclass(frozen=True)
class WholeImages:
    """How crops are made of images whose shorter side was scaled.

    Attributes:
        crop: makes the transform that crops, from `height` and `width`, the network's input.
        transforms: that follow it.
        crops_per_image: crops of an image in a batch, which is decoded once.
        mirror_too: and each of them mirrored (OverFeat, 3.1).
    """

    crop: Callable[..., Transform]
    transforms: Sequence[Transform] = ()
    crops_per_image: int = 1
    mirror_too: bool = False
    has_background: ClassVar[bool] = False

    @property
    def views(self) -> int:
        """Crops of each image in a batch, mirrored ones too."""
        return self.crops_per_image * (2 if self.mirror_too else 1)

    def of(self, split: ClassificationSplit, side_px: int, input_px: int) -> "CroppedImages":
        """See `Examples.of`."""
        learn_from(split, self.transforms)
        made = A.Compose([self.crop(height=input_px, width=input_px), *self.transforms])
        return CroppedImages(split, made, self, side_px)


def learn_from(split: ClassificationSplit, transforms: Sequence[Transform]) -> None:
    """Let the transforms that learn from images (`PCALighting`) do so."""
    for transform in transforms:
        if isinstance(transform, PCALighting):
            transform.learn_from(split)


class LabelledCrops(Dataset[Labelled]):
    """Crops by a number and a seed: a subclass says of what.

    Attributes:
        views: crops that each number stands for.
    """

    views: int = 1

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, number_and_seed: tuple[int, int]) -> Labelled: ...

    def loader(
        self, batch_size: int, seed: int, num_workers: int, part: tuple[int, int] = (0, 1)
    ) -> DataLoader[Labelled]:
        """All crops in random order: one epoch, all by the seed.

        Args:
            batch_size: crops in a batch, for each process; those of an image stay together, so
                it is the nearest multiple of their number.
            seed: the same for all processes.
            num_workers: processes that decode images.
            part: its number, and how many there are: only the batches of a part of the epoch.
        """
        images = max(1, round(batch_size / self.views))
        return DataLoader(
            self,
            batch_sampler=ShuffledBatches(len(self), images, seed, (rank(), world_size()), part),
            num_workers=num_workers,
            collate_fn=_join,
            pin_memory=torch.cuda.is_available(),
        )


class CroppedImages(LabelledCrops):
    """Crops of an image, by its number and a seed; then their mirror images."""

    def __init__(
        self, split: ClassificationSplit, transform: Transform, options: WholeImages, side_px: int
    ) -> None:
        self.split, self.transform, self.options = split, transform, options
        self.side_px, self.views = side_px, options.views
        self.scale = A.SmallestMaxSize(side_px, interpolation=cv2.INTER_LINEAR)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, number_and_seed: tuple[int, int]) -> Labelled:
        number, seed = number_and_seed
        pixels = self.scale(image=read_reduced(self.split.path(number), self.side_px))["image"]
        self.transform.set_random_seed(seed)
        crops = [self.transform(image=pixels)["image"] for _ in range(self.options.crops_per_image)]
        images = as_image(np.stack(crops))
        if self.options.mirror_too:
            images = torch.cat([images, images.flip(-1)])
        return images, self.split.target(number)["label"].expand(len(images))


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """An epoch's batches of rows with a seed each; a batch is shared out between the processes.

    The images of a step do not depend on the number of processes, as long as the product of it
    and the batch size stays. What is left over at the end waits for another epoch, so that all
    processes take equally many steps.

    Args:
        length: images.
        batch_size: of each process.
        seed: of the order and of the images' seeds.
        ranks: number of this process, and how many there are.
        part: of the epoch, and how many there are; together they are the whole.

    Raises:
        UserError: there are fewer images than processes, or batches than parts.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        ranks: tuple[int, int],
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.rank, self.world = ranks
        if length < self.world:
            raise UserError(f"{length} training images do not go round {self.world} processes")
        self.length, self.seed = length, seed
        self.batch_size = min(batch_size, length // self.world)
        steps = self.length // (self.batch_size * self.world)
        number, count = part
        if steps < count:
            raise UserError(
                f"an epoch of {steps} batches has no {count} parts: raise "
                "crops_per_checkpoint of the stage"
            )
        self.steps = range(steps * number // count, steps * (number + 1) // count)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(self.length)
        seeds = generator.integers(2**31, size=self.length)
        for step in self.steps:
            start = (step * self.world + self.rank) * self.batch_size
            rows = order[start : start + self.batch_size]
            yield [(int(row), int(seeds[row])) for row in rows]


def _join(items: list[Labelled]) -> Labelled:
    images, labels = zip(*items, strict=True)
    return torch.cat(images), torch.cat(labels)
