"""Training of a classifier, at one size or at several (SPP-net, 2.3; OverFeat, 3.1)."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from detection.classification.auxiliary import AuxiliaryClassifiers, outputs_of
from detection.classification.classifier import Classifier
from detection.classification.views import CropViews, ViewSet
from detection.data.classification_data import ClassificationData, Labelled, Viewed
from detection.errors import UserError
from detection.training.stage import Stage, mixed


class ClassificationStage(Stage):
    """Learns all layers from augmented images.

    Args:
        detector: the classifier.
        data: to learn.
        seed: see `Stage`.
        sizes_px: sides of the inputs, in turn; the augmented squares are resized to them. One
            size is single-size training.
        alternate: a new size each "epoch" (SPP-net, 2.3) or each "step".
        batch_size: images in a batch, for each process.
        epochs: over the training images.
        squares_per_part: a longer epoch is trained in parts of about so many squares, each of
            which ends with a checkpoint and a validation; they are Lightning's epochs.
        optimizer: makes one from parameters.
        schedule: makes one from an optimiser and the number of steps.
        dropout: behind fc6 and fc7.
        clip_norm: limit of the gradient's norm; None for none.
        auxiliary_weight: of the losses of classifiers on inner maps, for networks that have them.
        max_steps: no more batches than so many; None for no limit.
    """

    name = "train"
    detector: Classifier
    data: ClassificationData

    def __init__(
        self,
        detector: Classifier,
        data: ClassificationData,
        seed: int = 0,
        *,
        sizes_px: Sequence[int],
        alternate: Literal["epoch", "step"],
        batch_size: int,
        epochs: int,
        squares_per_part: int,
        optimizer: Callable[[Sequence[nn.Parameter]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        dropout: float,
        clip_norm: float | None,
        auxiliary_weight: float,
        max_steps: int | None,
    ) -> None:
        super().__init__(detector, data, seed)
        self.sizes_px = list(sizes_px)
        self.alternate = alternate
        self.batch_size = batch_size
        self.epochs = epochs
        self.refuse_unfit()
        squares = len(data.indices["train"]) * data.squares_per_image
        self.parts = math.ceil(squares / squares_per_part)
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.dropout = dropout
        self.clip_norm = clip_norm
        self.max_steps = max_steps
        backbone = detector.features.backbone
        self.auxiliary = AuxiliaryClassifiers(backbone, detector.num_classes, auxiliary_weight)
        centre = CropViews(resize_px=None, crop_px=None, places=["centre"], flip=False)
        self.val_views = ViewSet({"centre": centre})
        self.val_views.fit(data.side_px, backbone)
        detector.requires_grad_(True)

    def refuse_unfit(self) -> None:
        """Refuse options and data that cannot be learnt with.

        Raises:
            UserError: names the option.
        """
        option = "model.stages.train.sizes_px"
        if not self.sizes_px or min(self.sizes_px) < 1:
            raise UserError(f"{option} needs positive numbers")
        features = self.detector.features
        features.backbone.refuse_small(min(self.sizes_px), option, features.least_cells)
        if self.data.indices["train"].multi_label:
            raise UserError(
                f"data={self.data.name} shows several classes in an image: model=feature_svm "
                "learns them"
            )

    def trainer_options(self) -> dict[str, Any]:
        """An epoch of Lightning's is a part of ours; each has batches of its own."""
        return {
            "max_epochs": self.epochs * self.parts,
            "max_steps": -1 if self.max_steps is None else self.max_steps,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.clip_norm,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        optimizer = self.make_optimizer([p for p in self.parameters() if p.requires_grad])
        steps = len(self.data.train_loader(self.batch_size, seed=0))
        schedule = self.make_schedule(optimizer, self.epochs * steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Labelled]:
        """The batches of an epoch, or of a part of it."""
        epoch, part = divmod(self.current_epoch, self.parts)
        return self.data.train_loader(self.batch_size, mixed(self.seed, epoch), (part, self.parts))

    def val_dataloader(self) -> DataLoader[list[Viewed]]:
        """Centre crops of some test images: for the curves alone, nothing is chosen by them."""
        return self.data.view_loader(
            "test", self.val_views, self.batch_size, most=self.data.val_images
        )

    def size_now(self) -> int:
        """Side of the inputs of this step: a function of its number, so that processes agree."""
        epoch = self.current_epoch // self.parts
        number = epoch if self.alternate == "epoch" else self.global_step
        return self.sizes_px[number % len(self.sizes_px)]

    def training_step(self, batch: Labelled, index: int) -> Tensor:
        """Cross-entropy over the classes, the auxiliary classifiers' added."""
        images, labels = batch
        size = self.size_now()
        if images.shape[-1] != size:
            pixels = images.float() / 255
            images = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        with outputs_of(self.auxiliary.layers) as maps:
            logits = self.detector(images, self.dropout).float()
        loss = F.cross_entropy(logits, labels)
        if maps:
            loss = loss + self.auxiliary(maps, labels)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log("train/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"{len(labels)} images of {size} pixels a side")

    def validation_step(self, batch: list[Viewed], index: int) -> None:
        """Loss and accuracy on centre crops."""
        images = torch.stack([image.views[0][0] for image in batch])
        labels = torch.stack([image.label for image in batch])
        self.log_validation(self.detector(images).float(), labels)
