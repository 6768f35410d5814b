"""Pre-training of a network without weights: it learns on crops of the data at hand."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from detection.data.detection_data import DetectionData
from detection.data.object_crops import Augmentation, Crop, ObjectCrops
from detection.errors import UserError
from detection.regions.detector import RegionDetector
from detection.sppnet.features import SPPFeatures
from detection.training.detection_stage import DetectionStage
from detection.training.schedules import one_cycle
from detection.training.stage import mixed

Batch = tuple[Tensor, Tensor, Tensor, list[str]]  # (B, 3, S, S), (R, 5) windows, (R,), ids


class PretrainStage(DetectionStage):
    """Learns all layers by telling windows of objects and of background apart.

    Windows are pooled from the maps of crops just as the detector pools them from whole images.
    (A network that saw objects filling its input, zeros around them, told crops apart at 89 % on
    the drawn shapes, but its detector reached an mAP of 0.62: SPP-net, section 4.2, speaks of this
    difference.) The size of crops changes from epoch to epoch, as in section 2.3.

    Args:
        detector: to be trained; its classifier serves as the classifier of crops.
        data: whose truths and proposals are cropped.
        seed: see `DetectionStage`.
        sizes_px: sides of the crops, one an epoch in turn.
        crops_per_image: crops seen in all, for each training image.
        epochs: they are spread over.
        batch_size: crops in a batch, for each process.
        windows_per_crop: half of them objects, a quarter parts of objects.
        dropout: behind fc6 and fc7.
        optimizer: makes one from parameters; its rate is the highest of the cycle.
        clip_norm: gradients are clipped to this norm.
        augmentation: of crops.
        num_workers: processes that cut crops.
    """

    name = "pretrain"
    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        sizes_px: Sequence[int],
        crops_per_image: float,
        epochs: int,
        batch_size: int,
        windows_per_crop: int,
        dropout: float,
        optimizer: Callable[[Iterable[Tensor]], Optimizer],
        clip_norm: float,
        augmentation: Augmentation,
        num_workers: int,
    ) -> None:
        super().__init__(detector, data, seed)
        if not sizes_px or epochs < 1:
            raise UserError("model.stages.pretrain needs sizes_px and at least one epoch")
        self.features: SPPFeatures = detector.features
        self.sizes_px = tuple(sizes_px)
        self.epochs = epochs
        self.batch_size = batch_size
        self.loaders = num_workers
        wanted = crops_per_image * len(data.datasets["train"]) / epochs
        self.steps = max(1, math.ceil(wanted / batch_size))  # of an epoch
        self.dropout = dropout
        self.make_optimizer = optimizer
        self.clip_norm = clip_norm
        scale_px = self.features.scales_px[len(self.features.scales_px) // 2]
        num_classes = detector.num_classes
        self.crops = {
            split: ObjectCrops(
                data.datasets[split], num_classes, windows_per_crop, scale_px, augment
            )
            for split, augment in (("train", augmentation), ("val", None))
            if split in data.datasets and data.datasets[split].num_objects
        }
        detector.requires_grad_(False)
        for part in self.learning:
            part.requires_grad_(True)

    @property
    def learning(self) -> list[nn.Module]:
        """The layers that learn."""
        d = self.detector
        return [self.features.backbone.conv, d.fc6, d.fc7, d.classifier]

    def is_needed(self) -> bool:
        """Only where no weights were given."""
        return not self.features.backbone.pretrained

    def trainer_options(self) -> dict[str, Any]:
        """A new size each epoch."""
        return {
            "max_epochs": self.epochs,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.clip_norm,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The user's optimiser, its rate through one warm-up and decay."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        schedule = one_cycle(optimizer, self.steps * self.epochs)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def loader(self, split: str, size_px: int, steps: int, seed: int) -> DataLoader[Any]:
        """Batches of crops of one size, a function of the seed alone."""
        count = steps * self.batch_size
        return DataLoader(
            DrawnCrops(self.crops[split], count, size_px, seed),
            batch_size=self.batch_size,
            num_workers=self.loaders,
            collate_fn=join,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """The epoch's crops; all processes take the same size."""
        size_px = self.sizes_px[self.current_epoch % len(self.sizes_px)]
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return self.loader("train", size_px, self.steps, seed)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same few crops of val images at every epoch."""
        if "val" not in self.crops:
            return []
        return self.loader("val", self.sizes_px[0], max(1, self.steps // 4), mixed(self.seed, 7))

    def classify(self, images: Tensor, windows: Tensor, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) logits of windows, (R, 5) of crop and xyxy, in (B, 3, S, S) crops."""
        pooled = self.features(self.features.backbone.normalize(images), windows)
        return self.detector.logits(pooled, dropout)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        images, windows, labels, ids = batch
        logits = self.classify(images, windows, self.dropout).float()
        loss = F.cross_entropy(logits, labels)
        self.log("pretrain/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("pretrain/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"crops of images {', '.join(sorted(set(ids))[:8])}")

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on crops of val images."""
        images, windows, labels, _ = batch
        logits = self.classify(images, windows).float()
        self.log_validation(logits, labels)


class DrawnCrops(Dataset[Crop]):
    """Crops drawn at random: item n depends on the seed and n alone."""

    def __init__(self, crops: ObjectCrops, count: int, size_px: int, seed: int) -> None:
        self.crops, self.count, self.size_px, self.seed = crops, count, size_px, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Crop:
        return self.crops.draw(self.size_px, np.random.default_rng([self.seed, index]))


def join(crops: list[Crop]) -> Batch:
    """Crops of one size as a batch."""
    images = torch.from_numpy(np.stack([c.pixels for c in crops])).permute(0, 3, 1, 2)
    windows = [
        torch.cat([torch.full((len(c.boxes), 1), float(i)), torch.from_numpy(c.boxes)], dim=1)
        for i, c in enumerate(crops)
    ]
    labels = torch.from_numpy(np.concatenate([c.labels for c in crops]))
    return images.contiguous(), torch.cat(windows), labels, [c.image_id for c in crops]
