"""Fine-tuning of the fully connected layers on windows (SPP-net, section 4.1; R-CNN, 2.3)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from detection.data.detection_data import DetectionData
from detection.detection_stage import DetectionStage
from detection.regions.detector import RegionDetector
from detection.regions.prepared import PreparedImages
from detection.regions.sampling import WindowRule, Windows, draw, label_windows
from detection.regions.schedules import Length, drops
from detection.stage import mixed

Batch = tuple[Tensor, Tensor, str]  # features (R, D), labels (R,), ids of the images


class FinetuneStage(DetectionStage):
    """Learns fc6, fc7 and the (C + 1)-way classifier; the convolutions stay.

    Features are pooled for a chunk of batches at a time, image by image, as the original code
    does: an image's maps serve all its windows in the chunk. An epoch of the trainer is a chunk.

    Args:
        detector: to be fine-tuned.
        data: to fine-tune on.
        seed: see `DetectionStage`.
        split: list of the data to train on, within its train split; None: all of that.
        rule: which windows are objects and background.
        batch_size: windows in a batch, for each process.
        foreground_fraction: share of object windows.
        steps_per_image: batches for each training image, so that the length follows the data.
        min_steps: never fewer batches.
        chunk_steps: batches whose features are pooled at a time.
        learning_rate: of the first part.
        drop_at: share of the steps after which the learning rate is a tenth.
        momentum: of SGD.
        weight_decay: of SGD.
        dropout: behind fc6 and fc7.
        flip: use each image mirrored in half of the chunks.
        memory_gb: of maps kept between chunks.
    """

    name = "finetune"
    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        split: str | None,
        rule: WindowRule,
        batch_size: int,
        foreground_fraction: float,
        steps_per_image: float,
        min_steps: int,
        chunk_steps: int,
        learning_rate: float,
        drop_at: float,
        momentum: float,
        weight_decay: float,
        dropout: float,
        flip: bool,
        memory_gb: float,
    ) -> None:
        super().__init__(detector, data, seed)
        self.rule = rule
        self.chosen = data.training_images(split)
        objects = round(batch_size * foreground_fraction)
        self.per_batch = (objects, batch_size - objects)
        length = Length(steps_per_image, min_steps, chunk_steps)
        self.chunks, self.chunk_steps = length.epochs(len(self.chosen))
        self.sgd = {"lr": learning_rate, "momentum": momentum, "weight_decay": weight_decay}
        self.drop_at = drop_at
        self.dropout = dropout
        self.flip = flip
        self.max_bytes = int(memory_gb * 2**30)
        self.labelled: dict[str, tuple[Windows, Windows]] = {}
        self.images: dict[str, PreparedImages] = {}
        self.val_batches: list[Batch] = []
        detector.requires_grad_(False)
        for layer in (detector.fc6, detector.fc7, detector.classifier):
            layer.requires_grad_(True)

    def trainer_options(self) -> dict[str, Any]:
        """One epoch a chunk, each with new windows."""
        return {"max_epochs": self.chunks, "reload_dataloaders_every_n_epochs": 1}

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """SGD whose rate drops once."""
        optimizer = SGD((p for p in self.parameters() if p.requires_grad), **self.sgd)  # type: ignore[arg-type]
        schedule = drops(optimizer, self.chunks * self.chunk_steps, [self.drop_at])
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Batch]:
        """The batches of this epoch's chunk."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return DataLoader(Chunk(self, "train", self.chunk_steps, seed), batch_size=None)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """A few batches of val windows, the same at every epoch."""
        if not self.data.has_val:
            return []
        if not self.val_batches:
            steps = max(1, self.chunk_steps // 10)
            self.val_batches = list(Chunk(self, "val", steps, mixed(self.seed, 7)))
        return DataLoader(self.val_batches, batch_size=None)  # type: ignore[arg-type]

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        pooled, labels, images = batch
        logits = self.detector.logits(pooled, self.dropout)
        loss = F.cross_entropy(logits.float(), labels)
        self.log("finetune/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("finetune/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"windows of images {images}")

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on val windows."""
        pooled, labels, _ = batch
        logits = self.detector.logits(pooled).float()
        self.log_validation(logits, labels)

    def windows(self, split: str) -> tuple[Windows, Windows]:
        """Object and background windows of a split, labelled once."""
        if split not in self.labelled:
            dataset = self.data.datasets[split]
            images = self.chosen if split == "train" else None
            self.labelled[split] = label_windows(
                dataset, self.rule, self.detector.num_classes, images
            )
        return self.labelled[split]

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
