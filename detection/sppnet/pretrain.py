"""Pre-training of a network without weights: it learns on crops of the data at hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader, Dataset

from detection.data.module import DataModule
from detection.data.object_crops import Augmentation, Crop, ObjectCrops
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.regions.detector import RegionDetector
from detection.regions.sampling import VAL_SEED, window_loss
from detection.sppnet.features import SPPFeatures
from detection.training.schedules import OptimizerFactory, one_cycle
from detection.training.stage import Stage, mixed

Batch = tuple[Tensor, Tensor, Tensor, list[str]]  # (B, 3, S, S), (R, 5) windows, (R,), ids


VAL_SHARE = 4  # a quarter as many batches as an epoch of training has


@dataclass(frozen=True, kw_only=True)
class PretrainOptions:
    """Ours: the paper pre-trains on ImageNet. Sizes and their alternation are the paper's (2.3).

    Attributes:
        sizes_px: sides of the crops, one an epoch in turn (2.3).
        crops_per_image: crops seen in all, for each training image.
        epochs: they are spread over.
        batch_size: crops in a batch, for each process.
        windows_per_crop: half of them objects, a quarter parts of objects.
        dropout: after fc6 and fc7; few crops are seen often enough to learn by heart.
        optimizer: its learning rate is the highest of one cycle; the paper's SGD needs weeks.
        clip_norm: gradients are clipped to this norm.
        augmentation: of crops; None: none.
        num_workers: processes that cut crops.
    """

    sizes_px: Sequence[int] = (224, 180)
    crops_per_image: float = 100
    epochs: int = 20
    batch_size: int = 16
    windows_per_crop: int = 16
    dropout: float = 0.0
    optimizer: OptimizerFactory = partial(AdamW, lr=1e-3, weight_decay=0.01)
    clip_norm: float = 5.0
    augmentation: Augmentation | None = None
    num_workers: int = 0

    def stage(
        self, model: RegionDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "PretrainStage":
        """The stage that trains so."""
        return PretrainStage(model, data, evaluator, seed, options=self)


class PretrainStage(Stage):
    """Learns all layers by telling windows of objects and of background apart.

    Windows are pooled from the maps of crops just as the detector pools them from whole images.
    (A network that saw objects filling its input, zeros around them, told crops apart at 89 % on
    the drawn shapes, but its detector reached an mAP of 0.62: SPP-net, section 4.2, speaks of this
    difference.) The size of crops changes from epoch to epoch, as in section 2.3.

    Args:
        model: to be trained; its classifier serves as the classifier of crops.
        data: whose objects and proposals are cropped.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "pretrain"
    model: RegionDetector

    def __init__(
        self,
        model: RegionDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: PretrainOptions = PretrainOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        if not options.sizes_px or options.epochs < 1:
            raise UserError("model.stages.pretrain needs sizes_px and at least one epoch")
        self.options = options
        wanted = options.crops_per_image * len(data.splits["train"]) / options.epochs
        self.steps = max(1, math.ceil(wanted / options.batch_size))  # of an epoch
        scales = self.features.scales_px
        self.crops = {
            split: ObjectCrops(
                data.splits[split], model.num_classes, options.windows_per_crop,
                scales[len(scales) // 2], augment,
            )
            for split, augment in (("train", options.augmentation), ("val", None))
            if split in data.splits and data.splits[split].num_objects
        }  # fmt: skip

    @property
    def features(self) -> SPPFeatures:
        """The model's."""
        assert isinstance(self.model.features, SPPFeatures)
        return self.model.features

    def learns(self) -> Sequence[nn.Module]:
        """All layers that a class depends on."""
        return self.model.classifying_layers(self.features.backbone)

    def is_needed(self) -> bool:
        """Only where no weights were given."""
        return not self.features.backbone.pretrained

    def trainer_options(self) -> dict[str, Any]:
        """A new size each epoch."""
        return {
            "max_epochs": self.options.epochs,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.options.clip_norm,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The user's optimiser, its rate through one warm-up and decay."""
        return self.optimized(self.options.optimizer, one_cycle, [self.steps] * self.options.epochs)

    def loader(self, split: str, size_px: int, steps: int, seed: int) -> DataLoader[Any]:
        """Batches of crops of one size, a function of the seed only."""
        count = steps * self.options.batch_size
        return DataLoader(
            DrawnCrops(self.crops[split], count, size_px, seed),
            batch_size=self.options.batch_size,
            num_workers=self.options.num_workers,
            collate_fn=join_crops,
        )

    def train_dataloader(self) -> DataLoader[Any]:
        """The epoch's crops; all processes take the same size."""
        sizes = self.options.sizes_px
        size_px = sizes[self.current_epoch % len(sizes)]
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return self.loader("train", size_px, self.steps, seed)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The same few crops of val images at every epoch."""
        if "val" not in self.crops:
            return []
        steps = max(1, self.steps // VAL_SHARE)
        return self.loader("val", self.options.sizes_px[0], steps, mixed(self.seed, VAL_SEED))

    def logits(self, images: Tensor, windows: Tensor, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) of windows, (R, 5) of crop and xyxy, in (B, 3, S, S) crops."""
        pooled = self.features(self.features.backbone.normalize(images), windows)
        return self.model.logits(pooled, dropout).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        images, windows, labels, ids = batch
        logits = self.logits(images, windows, self.options.dropout)
        return window_loss(self, logits, labels, ", ".join(sorted(set(ids))[:8]))

    def classify(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of windows in crops of val images."""
        images, windows, labels, _ = batch
        return self.logits(images, windows), labels


class DrawnCrops(Dataset[Crop]):
    """Crops drawn at random: item n depends on the seed and n only."""

    def __init__(self, crops: ObjectCrops, count: int, size_px: int, seed: int) -> None:
        self.crops, self.count, self.size_px, self.seed = crops, count, size_px, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Crop:
        return self.crops.draw(self.size_px, np.random.default_rng([self.seed, index]))


def join_crops(crops: list[Crop]) -> Batch:
    """Crops of one size as a batch."""
    images = torch.from_numpy(np.stack([c.pixels for c in crops])).permute(0, 3, 1, 2)
    windows = [
        torch.cat([torch.full((len(c.boxes), 1), float(i)), torch.from_numpy(c.boxes)], dim=1)
        for i, c in enumerate(crops)
    ]
    labels = torch.from_numpy(np.concatenate([c.labels for c in crops]))
    return images.contiguous(), torch.cat(windows), labels, [c.image_id for c in crops]
