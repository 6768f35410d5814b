"""Training on whole images at several scales; their maps are kept as far as there is room."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from detection.backbones.backbone import Backbone
from detection.backbones.sliding import SlidingWindows
from detection.data.examples import ShuffledBatches
from detection.data.module import DataModule
from detection.data.samples import Split, as_image, as_pixels
from detection.evaluation.evaluator import Evaluator
from detection.localization.views import Frame, ScaledViews
from detection.runtime.distributed import rank, world_size
from detection.training.model import Model
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    scheduled,
    step_decay,
)
from detection.training.stage import Stage, mixed

VALIDATIONS = 5  # in a training, about
TABLE5 = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))


@dataclass
class ViewedImage:
    """An image at all scales.

    Attributes:
        index: in the split.
        mirrored: left to right.
        frames: where each view is from.
        views: (3, h, w) uint8 each; none where the maps are kept already.
        seed: of what is drawn from the image.
    """

    index: int
    mirrored: bool
    frames: list[Frame]
    views: list[Tensor]
    seed: int


@dataclass
class MapStore:
    """Maps of images, computed once while the convolutions stay as they are.

    Attributes:
        bytes_left: that may still be kept.
        kept: by image and whether it is mirrored.
    """

    bytes_left: int
    kept: dict[tuple[int, bool], tuple[list[Frame], list[Tensor]]] = field(default_factory=dict)

    def maps(self, image: ViewedImage, compute: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """The maps (1, C, h, w) of an image, one a scale.

        Args:
            image: to be looked at.
            compute: from a view (3, h, w) to its map.
        """
        key = image.index, image.mirrored
        if key in self.kept:
            return self.kept[key][1]
        maps = [compute(view) for view in image.views]
        size = sum(m.numel() * m.element_size() for m in maps)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.kept[key] = image.frames, maps
        return maps


class TrainingViews(Dataset[Any]):
    """Images of a split by their number and a seed; half of them mirrored.

    Args:
        split: images.
        rows: which of them.
        views: scales.
        flip: mirror half of them.
        store: whose images need not be decoded (by the process that trains; others cannot know).
    """

    def __init__(
        self, split: Split, rows: NDArray[np.int64], views: ScaledViews, flip: bool, store: MapStore
    ) -> None:
        self.split, self.rows, self.views, self.flip, self.store = split, rows, views, flip, store

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number_and_seed: tuple[int, int]) -> ViewedImage:
        number, seed = number_and_seed
        index, mirrored = int(self.rows[number]), bool(seed % 2) and self.flip
        if (index, mirrored) in self.store.kept:
            return ViewedImage(index, mirrored, self.store.kept[index, mirrored][0], [], seed)
        sample = self.split.sample(index, self.views.decode_px)
        pixels = self.views.views(as_pixels(sample.image), sample.size)
        views = [as_image(view[:, ::-1] if mirrored else view) for view in pixels]
        frames = [f._replace(mirrored=mirrored) for f in self.views.frames(sample.size)]
        return ViewedImage(index, mirrored, frames, views, seed)

    def loader(
        self, batch_size: int, seed: int, num_workers: int, part: tuple[int, int] = (0, 1)
    ) -> DataLoader[list[ViewedImage]]:
        """All images in random order: one epoch, all by the seed.

        Args:
            batch_size: images, for each process.
            seed: the same for all processes.
            num_workers: processes that decode images.
            part: of the epoch, and how many there are.
        """
        batches = ShuffledBatches(len(self), batch_size, seed, (rank(), world_size()), part)
        return DataLoader(
            self, batch_sampler=batches, num_workers=num_workers, collate_fn=list,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ViewsOptions:
    """How a stage learns from whole images, all their scales at a time.

    Attributes:
        sizes: scales to train on, from small to large (table 5; see `ScaledViews`).
        batch_size: images in a batch, for each process.
        epochs: over the images.
        min_steps: as many more epochs as one process would need for so many steps, for tiny data.
        optimizer: what the options' own class says.
        schedule: see `scheduled`.
        dropout: after hidden layers.
        flip: mirror half of the images.
        clip_norm: limit of the gradient's norm; None for none.
        backpropagate: through the convolutions too.
        memory_gb: of maps kept between epochs, while the convolutions stay.
        max_steps: no more batches than this, for trials; None for no limit.
        images_per_checkpoint: a longer epoch is trained in parts of about so many images, each of
            which ends with a checkpoint; they are Lightning's epochs.
    """

    sizes: Sequence[Sequence[int] | int] = TABLE5
    batch_size: int = 16
    epochs: int = 30
    min_steps: int = 0
    optimizer: OptimizerFactory
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.5, 0.8], factor=0.1)
    dropout: float = 0.0
    flip: bool = True
    clip_norm: float | None = None
    backpropagate: bool = False
    memory_gb: float = 4.0
    max_steps: int | None = None
    images_per_checkpoint: int = 50_000


class ViewsStage(Stage):
    """A stage that learns from whole images, all their scales at a time.

    The loss is a mean over windows. Of several processes it is the mean of their means, which is
    the same where each has as many windows.

    Args:
        model: that learns.
        data: to learn.
        evaluator: see `Stage`.
        seed: see `Stage`.
        rows: the training images to learn from.
        backbone: makes maps of the views.
        windows: of the maps.
        options: how.
    """

    options: ViewsOptions

    def __init__(
        self,
        model: Model,
        data: DataModule,
        evaluator: Evaluator,
        seed: int,
        *,
        rows: NDArray[np.int64],
        backbone: Backbone,
        windows: SlidingWindows,
        options: ViewsOptions,
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.options = options
        views = ScaledViews(options.sizes)
        views.bind(backbone, windows.pooling.span)
        # maps of convolutions that learn are of no use in the next epoch
        self.store = MapStore(0 if options.backpropagate else int(options.memory_gb * 2**30))
        self.images = TrainingViews(data.split("train"), rows, views, options.flip, self.store)

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
        optimizer = self.options.optimizer([p for p in self.parameters() if p.requires_grad])
        steps = self.epochs * len(self._loader(seed=0))
        return scheduled(optimizer, self.options.schedule, steps)

    @property
    def epochs(self) -> int:
        """Over the images; the same for any number of processes, which share out an epoch."""
        steps = max(1, len(self.images) // self.options.batch_size)
        return max(self.options.epochs, math.ceil(self.options.min_steps / steps))

    def train_dataloader(self) -> DataLoader[list[ViewedImage]]:
        """The images of an epoch, or of a part of it, all scales of each."""
        epoch, part = divmod(self.current_epoch, self.parts)
        return self._loader(mixed(self.seed, epoch), (part, self.parts))

    @property
    def parts(self) -> int:
        """Of an epoch."""
        return math.ceil(len(self.images) / self.options.images_per_checkpoint)

    def _loader(self, seed: int, part: tuple[int, int] = (0, 1)) -> DataLoader[list[ViewedImage]]:
        return self.images.loader(self.options.batch_size, seed, self.data.num_workers, part)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """The views; frames and boxes stay where windows are chosen."""
        if not (batch and isinstance(batch[0], ViewedImage)):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        for image in batch:
            image.views = [view.to(device, non_blocking=True) for view in image.views]
        return batch

    def names(self, batch: Sequence[ViewedImage]) -> str:
        """Which images a batch is of, for messages."""
        listed = [self.images.split.image_id(image.index) for image in batch[:8]]
        return f"images {', '.join(listed)}"


def some_places(
    found: Sequence[Tensor], most: int | None, generator: np.random.Generator
) -> list[Tensor]:
    """At most so many of the places of several maps, at random over all of them.

    Args:
        found: of each map, numbers (n,) of its places.
        most: of all; None: all.
        generator: of the choice.
    """
    total = sum(len(places) for places in found)
    if most is None or total <= most:
        return list(found)
    chosen = np.zeros(total, bool)
    chosen[generator.permutation(total)[:most]] = True
    ends = np.cumsum([len(places) for places in found])[:-1]
    return [
        places[torch.from_numpy(mine)]
        for places, mine in zip(found, np.split(chosen, ends), strict=True)
    ]
