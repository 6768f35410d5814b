"""Pre-training of a network without weights: it learns on the data's own object crops."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset

from detection.data.crops import Augmentation, ObjectCrops
from detection.data.detection_data import DetectionData
from detection.errors import UserError
from detection.regions.detector import RegionDetector
from detection.sppnet.features import SPPFeatures
from detection.stage import DetectionStage, mixed

Batch = tuple[Tensor, Tensor, list[str]]  # images (B, 3, S, S), labels (B,), ids


class PretrainStage(DetectionStage):
    """Learns all layers by telling crops of objects and of background apart.

    The size changes from epoch to epoch (SPP-net, section 2.3): the same network, its pyramid
    making one length of all sizes.

    Args:
        detector: to be trained; its classifier serves as the classifier of crops.
        data: whose truths and proposals are cropped.
        seed: see `DetectionStage`.
        sizes_px: sides of the crops, one an epoch in turn.
        crops_per_image: crops seen in all, for each training image.
        epochs: they are spread over.
        batch_size: crops in a batch, for each process.
        background_fraction: share of background crops.
        context: width of the border around an object, as a share of its longer side.
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
        background_fraction: float,
        context: float,
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
        self.crops = {
            split: ObjectCrops(
                data.datasets[split],
                len(data.class_names),
                background_fraction,
                context,
                augmentation if split == "train" else None,
            )
            for split in data.datasets
            if split != "test"
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
        total = self.steps * self.epochs
        highest = optimizer.param_groups[0]["lr"]
        schedule = OneCycleLR(optimizer, highest, total_steps=total, cycle_momentum=False)
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
        if not self.data.has_val:
            return []
        return self.loader("val", self.sizes_px[0], max(1, self.steps // 4), mixed(self.seed, 7))

    def classify(self, images: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, C + 1) logits of crops."""
        pooled = self.features(self.features.backbone.normalize(images))
        return self.detector.logits(pooled, dropout)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        images, labels, ids = batch
        logits = self.classify(images, self.dropout).float()
        loss = F.cross_entropy(logits, labels)
        self.log("pretrain/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("pretrain/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"crops of images {', '.join(sorted(set(ids))[:8])}")

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on crops of val images."""
        images, labels, _ = batch
        logits = self.classify(images).float()
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"val_loss": F.cross_entropy(logits, labels), "val_accuracy": accuracy}
        for key, value in values.items():
            self.log(
                f"pretrain/{key}", value, prog_bar=True, batch_size=len(labels), sync_dist=True
            )


class DrawnCrops(Dataset[tuple[NDArray[np.uint8], int, str]]):
    """Crops drawn at random: item n depends on the seed and n alone."""

    def __init__(self, crops: ObjectCrops, count: int, size_px: int, seed: int) -> None:
        self.crops, self.count, self.size_px, self.seed = crops, count, size_px, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int, str]:
        return self.crops.draw(self.size_px, np.random.default_rng([self.seed, index]))


def join(items: list[tuple[NDArray[np.uint8], int, str]]) -> Batch:
    """Crops of one size as a batch."""
    images = torch.from_numpy(np.stack([crop for crop, _, _ in items])).permute(0, 3, 1, 2)
    labels = torch.tensor([label for _, label, _ in items])
    return images.contiguous(), labels, [name for _, _, name in items]
