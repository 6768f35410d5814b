"""Training of a classifier, at one size or at several (SPP-net, 2.3; OverFeat, 3.1)."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader
from torchvision.models.googlenet import InceptionAux

from detection.backbones.backbone import Backbone
from detection.classification.classifier import Classifier
from detection.classification.views import centre_view
from detection.data.classification import ClassificationSplit
from detection.data.examples import Examples, Labelled, WholeImages
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.data.transforms import CentreOrCornerCrop
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    step_decay,
)
from detection.training.stage import Stage, mixed


@dataclass(frozen=True, kw_only=True)
class ClassificationOptions:
    """SPP-net's training of classifiers (3.1); OverFeat's differs in its config.

    Attributes:
        examples: what crops are made of images.
        sizes_px: sides of the inputs, in turn; the augmented crops are resized to them. One size is
            single-size training; None: the network's own.
        alternate: a new size each "epoch" (SPP-net, 2.3) or each "step" (ours).
        batch_size: crops in a batch, for each process (Krizhevsky et al. 2012).
        epochs: over the training images (SPP-net, 3.1).
        crops_per_checkpoint: a longer epoch is trained in parts of about this many crops, each of
            which ends with a checkpoint and a validation; they are Lightning's epochs.
        optimizer: learning rate: SPP-net, 3.1; the rest: Krizhevsky et al. 2012.
        schedule: divided by 10 twice, "when the error plateaus" (SPP-net, 3.1); None: one cycle.
        dropout: after fc6 and fc7 (SPP-net, 3.1).
        clip_norm: limit of the gradient's norm; None for none.
        auxiliary_weight: of the losses of classifiers on inner maps, for networks that have them
            (Szegedy et al. 2014, 5).
        max_steps: no more batches than this, for trials; None for no limit.
        head_only: convolutions with published weights stay as they are, which takes a quarter of
            the time of an epoch and suits a few hundred images.
    """

    examples: Examples = WholeImages(CentreOrCornerCrop)
    sizes_px: Sequence[int] | None = None
    alternate: Literal["epoch", "step"] = "epoch"
    batch_size: int = 128
    epochs: int = 70
    crops_per_checkpoint: int = 640_000
    optimizer: OptimizerFactory = partial(SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.6, 0.85], factor=0.1)
    dropout: float = 0.5
    clip_norm: float | None = None
    auxiliary_weight: float = 0.3
    max_steps: int | None = None
    head_only: bool = False

    def stage(
        self, model: Classifier, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "ClassificationStage":
        """The stage that trains so."""
        return ClassificationStage(model, data, evaluator, seed, options=self)


class ClassificationStage(Stage):
    """Learns all layers from augmented crops.

    Args:
        model: the classifier.
        data: to learn.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "train"
    model: Classifier
    knows_background = False

    def __init__(
        self,
        model: Classifier,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: ClassificationOptions = ClassificationOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.options = options
        backbone, split = model.features.backbone, data.split("train")
        self.sizes_px = [backbone.input_px] if options.sizes_px is None else list(options.sizes_px)
        self.check(split)
        self.examples = options.examples.of(split, model.side_px, backbone.input_px)
        crops = len(self.examples) * self.examples.views
        self.parts = math.ceil(crops / options.crops_per_checkpoint)
        self.auxiliary = AuxiliaryClassifiers(backbone, model.num_classes, options.auxiliary_weight)
        self.val_views = centre_view()
        self.val_views.bind(model.side_px, backbone)

    def learns(self) -> Sequence[nn.Module]:
        """All of it, or what reads the convolutions' map."""
        return [self.model.head if self.options.head_only else self.model]

    def check(self, split: ClassificationSplit) -> None:
        """Check options and data before any work.

        Raises:
            UserError: names the option.
        """
        option = f"model.stages.{self.name}.sizes_px"
        if not self.sizes_px or min(self.sizes_px) < 1:
            raise UserError(f"{option} needs positive numbers")
        if self.options.examples.has_background and not self.knows_background:
            raise UserError(
                f"model.stages.{self.name}.examples show background, for which stage {self.name} "
                "has no output"
            )
        features = self.model.features
        features.backbone.check_input(min(self.sizes_px), option, features.least_cells)
        if split.multi_label:
            raise UserError(
                f"data={self.data.name} shows several classes in an image: model=feature_svm "
                "learns them"
            )

    def trainer_options(self) -> dict[str, Any]:
        """An epoch of Lightning's is a part of ours; each has batches of its own."""
        return {
            "max_epochs": self.options.epochs * self.parts,
            "max_steps": -1 if self.options.max_steps is None else self.options.max_steps,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.options.clip_norm,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        batches = [len(self._loader(0, (part, self.parts))) for part in range(self.parts)]
        return self.optimized(
            self.options.optimizer, self.options.schedule, batches * self.options.epochs
        )

    def train_dataloader(self) -> DataLoader[Labelled]:
        """The batches of an epoch, or of a part of it."""
        epoch, part = divmod(self.current_epoch, self.parts)
        return self._loader(mixed(self.seed, epoch), (part, self.parts))

    def _loader(self, seed: int, part: tuple[int, int] = (0, 1)) -> DataLoader[Labelled]:
        workers = self.data.num_workers
        return self.examples.loader(self.options.batch_size, seed, workers, part)

    def val_dataloader(self) -> DataLoader[list[Sample]] | list[Any]:
        """Centre crops of the val images."""
        if not self.data.has_val:
            return []
        return self.data.loader("val", self.val_views, self.options.batch_size)

    def size_now(self) -> int:
        """Side of the inputs of this step: a function of its number, so that processes agree."""
        epoch = self.current_epoch // self.parts
        number = epoch if self.options.alternate == "epoch" else self.global_step
        return self.sizes_px[number % len(self.sizes_px)]

    def training_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        """Cross-entropy over the classes, the auxiliary classifiers' added."""
        images, labels = batch
        size = self.size_now()
        if images.shape[-1] != size:
            pixels = images.float() / 255
            images = F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True)
        with outputs_of(self.auxiliary.layers) as maps:
            logits = self.model(images, self.options.dropout).float()
        loss = F.cross_entropy(logits, labels)
        if maps:
            loss = loss + self.auxiliary(maps, labels)
        self.log(f"{self.name}/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log(f"{self.name}/accuracy", accuracy, batch_size=len(labels))
        return self.check_finite(loss, f"{len(labels)} images of {size} pixels a side")

    def classify(self, batch: list[Sample]) -> tuple[Tensor, Tensor]:
        """Logits of centre crops."""
        images = torch.stack([sample.views[0][0] for sample in batch])
        labels = torch.stack([sample.target["label"] for sample in batch])
        return self.model(images).float(), labels


class AuxiliaryClassifiers(nn.Module):
    """One on each of some inner maps: their gradients reach a deep network's first layers.

    Args:
        backbone: of whose `auxiliary` maps there is one each; most networks have none.
        num_classes: C.
        weight: of their losses; 0 for none of them.
    """

    def __init__(self, backbone: Backbone, num_classes: int, weight: float) -> None:
        super().__init__()
        inner = backbone.auxiliary if weight else ()
        self.weight = weight
        self.layers = tuple(backbone.conv[place] for place, _ in inner)  # the network's, not ours
        self.heads = nn.ModuleList(InceptionAux(channels, num_classes) for _, channels in inner)

    def forward(self, maps: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The weighted sum of their cross-entropies.

        Args:
            maps: of each classifier, (B, C, h, w).
            labels: (B,) of the images.
        """
        losses = [
            F.cross_entropy(head(inner).float(), labels)
            for head, inner in zip(self.heads, maps, strict=True)
        ]
        return self.weight * torch.stack(losses).sum()


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What some layers give in the passes inside, in the order in which they run."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
        for layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
