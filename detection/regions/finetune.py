"""Fine-tuning of the fully connected layers on windows (SPP-net, section 4.1; R-CNN, 2.3)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.prepared import PreparedImages
from detection.regions.sampling import Windows, draw
from detection.regions.window_training import WindowTraining
from detection.training.schedules import drops
from detection.training.stage import mixed

Batch = tuple[Tensor, Tensor, str]  # features (R, D), labels (R,), ids of the images


class FinetuneStage(WindowTraining):
    """Learns fc6, fc7 and the (C + 1)-way classifier; the convolutions stay.

    Features are pooled for an epoch at a time, image by image, as the original code does: an
    image's maps serve all its windows in the epoch.

    Args:
        detector: to be fine-tuned.
        data: to fine-tune on.
        seed: see `DetectionStage`.
        learning_rate: of the first part.
        drop_at: share of the steps after which the learning rate is a tenth.
        momentum: of SGD.
        weight_decay: of SGD.
        options: of `WindowTraining`; images are mirrored in half of the epochs, and what is kept
            of them are maps.
    """

    name = "finetune"

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        learning_rate: float,
        drop_at: float,
        momentum: float,
        weight_decay: float,
        **options: Any,
    ) -> None:
        super().__init__(detector, data, seed, **options)
        self.sgd = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        self.drop_at = drop_at
        self.images: dict[str, PreparedImages] = {}
        self.val_batches: list[Batch] = []
        detector.requires_grad_(False)
        for layer in (detector.fc6, detector.fc7, detector.classifier):
            layer.requires_grad_(True)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """SGD whose rate drops once."""
        optimizer = SGD((p for p in self.parameters() if p.requires_grad), **self.sgd)  # type: ignore[arg-type]
        schedule = drops(optimizer, self.epochs * self.steps, [self.drop_at])
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of this epoch."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return DataLoader(Chunk(self, "train", self.steps, seed), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """A few batches of val windows, the same at every epoch."""
        if not self.can_validate:
            return []
        if not self.val_batches:
            steps = max(1, self.steps // 10)
            self.val_batches = list(Chunk(self, "val", steps, mixed(self.seed, 7)))
        return DataLoader(self.val_batches, batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        pooled, labels, images = batch
        return self.loss(self.detector.logits(pooled, self.dropout), labels, images)

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on val windows."""
        pooled, labels, _ = batch
        logits = self.detector.logits(pooled).float()
        self.log_validation(logits, labels)

    def prepared(self, split: str) -> PreparedImages:
        """Maps of a split's images."""
        if split not in self.images:
            self.images[split] = PreparedImages(
                self.detector.features, self.data.datasets[split], self.device, self.max_bytes
            )
        return self.images[split]


class Chunk(IterableDataset[Batch]):
    """Batches whose windows are drawn, and whose features are pooled, together.

    Args:
        stage: whose detector pools.
        split: of the data.
        batches: how many.
        seed: of the windows.
    """

    def __init__(self, stage: FinetuneStage, split: str, batches: int, seed: int) -> None:
        self.stage = stage
        self.split = split
        self.batches = batches
        self.seed = seed

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Batch]:
        generator = np.random.default_rng(self.seed)
        tables = self.stage.windows(self.split)
        windows = draw(*tables, self.batches, self.stage.per_batch, generator)
        pooled = self.pool(windows, generator)
        size = sum(self.stage.per_batch)
        ids = self.stage.data.datasets[self.split].image_ids
        for start in range(0, len(windows), size):
            rows = slice(start, start + size)
            names = ", ".join(ids[i] for i in np.unique(windows.image[rows])[:8])
            labels = torch.from_numpy(windows.label[rows]).to(pooled.device)
            yield pooled[rows].float(), labels, names

    def pool(self, windows: Windows, generator: np.random.Generator) -> Tensor:
        """Features of all windows of the chunk, (R, D), in half precision."""
        stage = self.stage
        images, group = np.unique(windows.image, return_inverse=True)
        by_image = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[by_image], np.arange(len(images) + 1))
        mirror = generator.random(len(images)) < (0.5 if stage.flip else 0.0)
        features = stage.detector.features
        pooled = torch.empty(
            len(windows), features.out_features, dtype=torch.float16, device=stage.device
        )
        prepared = stage.prepared(self.split)
        wanted = [(int(i), bool(m)) for i, m in zip(images, mirror, strict=True)]
        for place, image in enumerate(prepared.stream(wanted)):
            rows = by_image[starts[place] : starts[place + 1]]
            boxes = torch.from_numpy(windows.box[rows])
            pooled[torch.from_numpy(rows).to(stage.device)] = prepared.pool(image, boxes).half()
        return pooled
