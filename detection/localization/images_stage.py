"""What stages that learn from shuffled images with boxes share: epochs, their parts, the loader."""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from detection.data.examples import ShuffledBatches
from detection.data.module import DataModule
from detection.data.samples import Split
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.runtime.distributed import is_first_process, rank, world_size
from detection.training.model import Model
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    step_decay,
)
from detection.training.stage import Stage, mixed

log = logging.getLogger(__name__)

VALIDATIONS = 5  # in a training, about


@dataclass(frozen=True, kw_only=True)
class ImagesOptions:
    """How a stage learns from shuffled images.

    Attributes:
        batch_size: images in a batch, for each process.
        epochs: over the images.
        min_steps: as many more epochs as one process would need for so many steps, for tiny data.
        optimizer: what the options' own class says.
        schedule: see `scheduled`.
        flip: mirror half of the images.
        clip_norm: limit of the gradient's norm; None for none.
        backpropagate: through the convolutions too; False: they stay as they are.
        max_steps: no more batches than this, for trials; None for no limit.
        images_per_checkpoint: a longer epoch is trained in parts of about so many images, each of
            which ends with a checkpoint; they are Lightning's epochs.
    """

    batch_size: int
    epochs: int
    min_steps: int = 0
    optimizer: OptimizerFactory
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.5, 0.8], factor=0.1)
    flip: bool = True
    clip_norm: float | None = None
    backpropagate: bool
    max_steps: int | None = None
    images_per_checkpoint: int = 50_000


@dataclass
class TrainingImage:
    """An image that is learnt from, in whatever form.

    Attributes:
        index: in its split.
        seed: of what is drawn from it.
    """

    index: int
    seed: int

    @abstractmethod
    def move(self, device: torch.device) -> None:
        """Bring its pixels to a device; boxes stay where places are chosen."""


class ShuffledImages(Dataset[Any]):
    """Images of a split, by their number and a seed: a subclass says in what form.

    Args:
        split: images.
        rows: (N,) which of them.
    """

    def __init__(self, split: Split, rows: NDArray[np.int64]) -> None:
        self.split, self.rows = split, rows

    def __len__(self) -> int:
        return len(self.rows)

    @abstractmethod
    def __getitem__(self, number_and_seed: tuple[int, int]) -> TrainingImage: ...

    def loader(
        self, batch_size: int, seed: int, num_workers: int, part: tuple[int, int] = (0, 1)
    ) -> DataLoader[list[TrainingImage]]:
        """All images in random order: one epoch, all by the seed.

        Args:
            batch_size: images, for each process.
            seed: the same for all processes.
            num_workers: processes that decode images.
            part: of the epoch, and how many there are.
        """
        batches = ShuffledBatches(len(self), batch_size, seed, (rank(), world_size()), part)
        return DataLoader(self, batch_sampler=batches, num_workers=num_workers, collate_fn=list)


class ImagesStage(Stage):
    """A stage that learns from shuffled images.

    Args:
        model: that learns.
        data: to learn.
        evaluator: see `Stage`.
        seed: see `Stage`.
        images: to learn from.
        options: how.
    """

    options: ImagesOptions

    def __init__(
        self,
        model: Model,
        data: DataModule,
        evaluator: Evaluator,
        seed: int,
        *,
        images: ShuffledImages,
        options: ImagesOptions,
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.images, self.options = images, options

    @property
    def epochs(self) -> int:
        """Over the images; the same for any number of processes, which share out an epoch."""
        steps = max(1, len(self.images) // self.options.batch_size)
        return max(self.options.epochs, math.ceil(self.options.min_steps / steps))

    @property
    def parts(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.images) / self.options.images_per_checkpoint)

    def trainer_options(self) -> dict[str, Any]:
        """Images in another order each epoch; a few validations."""
        return {
            "max_epochs": self.epochs * self.parts,
            "max_steps": -1 if self.options.max_steps is None else self.options.max_steps,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.options.clip_norm,
            "check_val_every_n_epoch": max(1, self.epochs * self.parts // VALIDATIONS),
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        batches = [len(self._loader(0, (part, self.parts))) for part in range(self.parts)]
        return self.optimized(self.options.optimizer, self.options.schedule, batches * self.epochs)

    def train_dataloader(self) -> DataLoader[list[TrainingImage]]:
        """The images of an epoch, or of a part of it."""
        epoch, part = divmod(self.current_epoch, self.parts)
        return self._loader(mixed(self.seed, epoch), (part, self.parts))

    def _loader(self, seed: int, part: tuple[int, int] = (0, 1)) -> DataLoader[list[TrainingImage]]:
        return self.images.loader(self.options.batch_size, seed, self.data.num_workers, part)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The images' pixels; samples that are validated as Lightning moves them."""
        if not (batch and isinstance(batch[0], TrainingImage)):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        for image in batch:
            image.move(device)
        return batch

    def names(self, batch: Sequence[TrainingImage]) -> str:
        """Which images a batch is of, for messages."""
        listed = [self.images.split.image_id(image.index) for image in batch[:8]]
        return f"images {', '.join(listed)}"


def rows_with_boxes(data: DataModule) -> NDArray[np.int64]:
    """Numbers of the training images that have boxes.

    It says how many have none, and of which classes all have none.

    Raises:
        UserError: none has.
    """
    split = data.split("train")
    counts = split.box_counts()
    rows = np.flatnonzero(counts)
    if len(rows) == 0:
        raise UserError(f"data={data.name}: no training image has a box to learn from")
    if len(rows) < len(counts) and is_first_process():
        log.info("boxes are learnt from %d of %d images: the others have none", len(rows),
                 len(counts))  # fmt: skip
    unseen = sorted(set(range(data.num_classes)) - set(split.labels()[rows].tolist()))
    if unseen and is_first_process():
        log.warning(
            "no training image has a box of %d of %d classes (%s): boxes for them are guesses",
            len(unseen), data.num_classes,
            ", ".join(data.class_names[label] for label in unseen[:8]),
        )  # fmt: skip
    return rows
