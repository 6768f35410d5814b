"""Training of a whole network on warped windows (R-CNN, section 2.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from detection.data.detection_data import DetectionData
from detection.detection_stage import DetectionStage
from detection.rcnn.features import WarpedFeatures
from detection.rcnn.window_batches import Batch, DecodedImages, Drawing, Tables, WindowBatches
from detection.regions.detector import RegionDetector
from detection.regions.sampling import WindowRule, label_windows
from detection.regions.schedules import Length
from detection.stage import mixed


@dataclass(frozen=True)
class Rates:
    """Learning rates of the layers.

    Attributes:
        base: of the network.
        head_factor: that of the new classifier is so many times as high.
        bias_factor: and that of biases so many times their layer's; they do not decay.
    """

    base: float
    head_factor: float
    bias_factor: float


class WarpedTrainingStage(DetectionStage):
    """Learns all layers and the (C + 1)-way classifier from warped windows.

    It fine-tunes a network that has weights, and trains one that has none.

    Args:
        detector: to be trained.
        data: to train on.
        seed: see `DetectionStage`.
        name: of the stage.
        only_without_weights: skip it where the backbone has weights.
        split: list of the data to train on, within its train split; None: all of that.
        rule: which windows are objects and background.
        batch_size: windows in a batch, for each process.
        foreground_fraction: share of object windows.
        length: see `Length`.
        rates: see `Rates`.
        optimizer: makes one from groups of parameters.
        schedule: makes one from an optimiser and the number of steps.
        dropout: behind fc6 and fc7.
        flip: mirror half of the windows.
        memory_gb: of decoded images.
    """

    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        name: str,
        only_without_weights: bool,
        split: str | None,
        rule: WindowRule,
        batch_size: int,
        foreground_fraction: float,
        length: Length,
        rates: Rates,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        dropout: float,
        flip: bool,
        memory_gb: float,
    ) -> None:
        super().__init__(detector, data, seed)
        self.name = name
        self.only_without_weights = only_without_weights
        self.chosen = data.training_images(split)
        self.rule = rule
        objects = round(batch_size * foreground_fraction)
        self.per_batch = (objects, batch_size - objects)
        self.epochs, self.steps = length.epochs(len(self.chosen))
        self.rates = rates
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.dropout = dropout
        self.flip = flip
        self.max_bytes = int(memory_gb * 2**30)
        self.sources: dict[str, tuple[DecodedImages, Tables]] = {}
        detector.requires_grad_(False)
        for part in (
            detector.features.backbone.conv,
            detector.fc6,
            detector.fc7,
            detector.classifier,
        ):
            part.requires_grad_(True)

    @property
    def features(self) -> WarpedFeatures:
        """The detector's."""
        return self.detector.features

    def is_needed(self) -> bool:
        """Fine-tuning always; training from nothing only where there are no weights."""
        return not (self.only_without_weights and self.features.backbone.pretrained)

    def trainer_options(self) -> dict[str, Any]:
        """New windows in each epoch."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 1}

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule, with a rate for each kind of parameter."""
        optimizer = self.make_optimizer(parameter_groups(self.detector, self.rates))
        schedule = self.make_schedule(optimizer, self.epochs * self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the epoch."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return self.loader("train", self.steps, seed, self.flip)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The same few batches of val windows at every epoch."""
        if not self.data.has_val or not all(len(table) for table in self.source("val")[1]):
            return []
        return self.loader("val", max(1, min(20, self.steps // 10)), mixed(self.seed, 7), False)

    def loader(self, split: str, batches: int, seed: int, flip: bool) -> DataLoader[Batch]:
        """Batches of a split, a function of the seed alone."""
        threads = max(1, self.data.num_workers)
        drawing = Drawing(batches, self.per_batch, flip, seed, threads)
        return DataLoader(WindowBatches(*self.source(split), drawing), batch_size=None)

    def source(self, split: str) -> tuple[DecodedImages, Tables]:
        """Images and windows of a split, labelled once."""
        if split not in self.sources:
            dataset = self.data.datasets[split]
            images = self.chosen if split == "train" else None
            tables = label_windows(dataset, self.rule, self.detector.num_classes, images)
            self.sources[split] = (DecodedImages(dataset, self.max_bytes), tables)
        return self.sources[split]

    def classify(self, batch: Batch, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) logits of a batch's windows."""
        images, boxes, _, mirror, _ = batch
        normalized = [self.features.backbone.normalize(image) for image in images]
        return self.detector.logits(self.features(normalized, boxes, mirror), dropout).float()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        labels = batch[2]
        logits = self.classify(batch, self.dropout)
        loss = F.cross_entropy(logits, labels)
        self.log(f"{self.name}/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log(f"{self.name}/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"windows of images {batch[4]}")

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on val windows."""
        self.log_validation(self.classify(batch), batch[2])


def parameter_groups(detector: RegionDetector, rates: Rates) -> list[dict[str, Any]]:
    """The trained parameters by their rates; only weights decay.

    caffe, rcnn: finetuning/voc_2012_prototxt/pascal_finetune_train.prototxt.
    """
    network = [detector.features.backbone.conv, detector.fc6, detector.fc7]
    groups: list[dict[str, Any]] = []
    for parts, rate in (
        (network, rates.base),
        ([detector.classifier], rates.base * rates.head_factor),
    ):
        layers = [m for part in parts for m in part.modules()]
        layers = [m for m in layers if isinstance(m, nn.Conv2d | nn.Linear)]
        biases = [m.bias for m in layers if m.bias is not None]
        groups.append({"params": [m.weight for m in layers], "lr": rate})
        groups.append({"params": biases, "lr": rate * rates.bias_factor, "weight_decay": 0.0})
    return groups
