"""Fine-tuning of the fully connected layers on windows (SPP-net, section 4.1; R-CNN, 2.3)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from detection.data.module import DataModule
from detection.evaluation.evaluator import Evaluator
from detection.matching import Matcher
from detection.regions.detector import RegionDetector
from detection.regions.prepared import PreparedImages
from detection.regions.sampling import (
    VAL_SEED,
    VAL_SHARE,
    Tables,
    Windows,
    WindowSampler,
    draw,
    window_loss,
)
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    TrainingLength,
    step_decay,
)
from detection.training.stage import Stage, mixed

Batch = tuple[Tensor, Tensor, str]  # features (R, D), labels (R,), ids of the images


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions:
    """SPP-net's fine-tuning.

    Attributes:
        split: list of the data to train on, within its train split; None: all of that.
        matcher: which windows are objects and background (SPP-net, 4.1).
        batch_size: windows in a batch, for each process (R-CNN, 2.3).
        foreground_fraction: share of object windows (SPP-net, 4.1).
        class_balance: see `draw`; 0 in the papers.
        length: 300,000 batches on VOC 2007's 5,011 images (SPP-net, 4.1).
        optimizer: pascal_finetune_fc_spm_solver.prototxt; the learning rate: SPP-net, 4.1.
        schedule: to a tenth after 250,000 of 300,000 batches (SPP-net, 4.1).
        dropout: after fc6 and fc7 (SPP-net, 3.1).
        flip: mirror the images in half of the epochs (spp_finetune_voc.m).
        memory_gb: of maps kept between epochs.
    """

    split: str | None = None
    matcher: Matcher = Matcher(0.5, 0.1, 0.5)
    batch_size: int = 128
    foreground_fraction: float = 0.25
    class_balance: float = 0.0
    length: TrainingLength = TrainingLength(59.87)
    optimizer: OptimizerFactory = partial(SGD, lr=1e-4, momentum=0.9, weight_decay=5e-4)
    schedule: ScheduleFactory = partial(step_decay, at=[0.8333])
    dropout: float = 0.5
    flip: bool = True
    memory_gb: float = 4.0

    def stage(
        self, model: RegionDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "FinetuneStage":
        """The stage that trains so."""
        return FinetuneStage(model, data, evaluator, seed, options=self)


class FinetuneStage(Stage):
    """Learns fc6, fc7 and the (C + 1)-way classifier; the convolutions stay.

    Features are pooled for an epoch at a time, image by image, as the original code does: an
    image's maps serve all its windows in the epoch.

    Args:
        model: to be fine-tuned.
        data: to fine-tune on, with proposals.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "finetune"
    model: RegionDetector

    def __init__(
        self,
        model: RegionDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: FinetuneOptions = FinetuneOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.options = options
        self.sampler = WindowSampler(
            data.splits, model.num_classes, options.matcher, options.split, options.batch_size,
            options.foreground_fraction,
        )  # fmt: skip
        self.epochs, self.steps = options.length.epochs(len(self.sampler.images))
        self.images: PreparedImages | None = None
        self.val_batches: list[Batch] = []

    def learns(self) -> Sequence[nn.Module]:
        """fc6, fc7 and the classifier."""
        return self.model.classifying_layers()

    def trainer_options(self) -> dict[str, Any]:
        """New windows in each epoch."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 1}

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        return self.optimized(
            self.options.optimizer, self.options.schedule, [self.steps] * self.epochs
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of this epoch."""
        if self.images is None:
            self.images = self._images("train", self.options.memory_gb)
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return DataLoader(self._chunk("train", self.images, self.steps, seed), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """A few batches of val windows, the same at every epoch."""
        if not self.sampler.can_validate:
            return []
        if not self.val_batches:
            steps = max(1, self.steps // VAL_SHARE)
            seed = mixed(self.seed, VAL_SEED)
            images = self._images("val", memory_gb=0)  # each is read once, here
            self.val_batches = list(self._chunk("val", images, steps, seed))
        return DataLoader(self.val_batches, batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        pooled, labels, images = batch
        logits = self.model.logits(pooled, self.options.dropout).float()
        return window_loss(self, logits, labels, images)

    def classify(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of val windows."""
        pooled, labels, _ = batch
        return self.model.logits(pooled).float(), labels

    def _images(self, split: str, memory_gb: float) -> PreparedImages:
        return PreparedImages(
            self.model.regions, self.data.splits[split], self.device, int(memory_gb * 2**30)
        )

    def _chunk(self, split: str, images: PreparedImages, batches: int, seed: int) -> "Chunk":
        return Chunk(
            images, self.sampler.windows(split), self.sampler.per_batch, batches, seed,
            self.options.flip, self.options.class_balance,
        )  # fmt: skip


class Chunk(IterableDataset[Batch]):
    """Batches whose windows are drawn, and whose features are pooled, together.

    Args:
        images: with maps, to pool from.
        tables: object and background windows.
        per_batch: object and background windows in a batch.
        batches: how many.
        seed: of the windows.
        flip: mirror half of the images.
        class_balance: see `draw`.
    """

    def __init__(
        self,
        images: PreparedImages,
        tables: Tables,
        per_batch: tuple[int, int],
        batches: int,
        seed: int,
        flip: bool,
        class_balance: float = 0.0,
    ) -> None:
        self.class_balance = class_balance
        self.images, self.tables, self.per_batch = images, tables, per_batch
        self.batches, self.seed, self.flip = batches, seed, flip

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.default_rng(self.seed)
        windows = draw(*self.tables, self.batches, self.per_batch, generator, self.class_balance)
        # every image's maps are read once for all of the epoch's batches, not once a batch
        pooled = self.pool(windows, generator)
        size, ids = sum(self.per_batch), self.images.dataset.image_ids
        for start in range(0, len(windows), size):
            rows = slice(start, start + size)
            names = ", ".join(ids[i] for i in np.unique(windows.image[rows])[:8])
            labels = torch.from_numpy(windows.label[rows]).to(pooled.device)
            yield pooled[rows].float(), labels, names

    def pool(self, windows: Windows, generator: np.random.Generator) -> Tensor:
        """Features of all windows of the chunk, (R, D), in half precision."""
        images, group = np.unique(windows.image, return_inverse=True)
        # sorted by image, so that each is read once; `pooled` keeps the windows' own order
        by_image = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[by_image], np.arange(len(images) + 1))
        mirror = generator.random(len(images)) < (0.5 if self.flip else 0.0)
        # half precision: 64,000 windows of 12,800 numbers are 1.6 GB, not 3.3
        pooled = torch.empty(
            len(windows), self.images.features.out_features, dtype=torch.float16,
            device=self.images.device,
        )  # fmt: skip
        wanted = [(int(i), bool(m)) for i, m in zip(images, mirror, strict=True)]
        for number, image in enumerate(self.images.stream(wanted)):
            rows = by_image[starts[number] : starts[number + 1]]
            boxes = torch.from_numpy(windows.box[rows])
            features = self.images.pool(image, boxes).half()
            pooled[torch.from_numpy(rows).to(pooled.device)] = features
        return pooled
