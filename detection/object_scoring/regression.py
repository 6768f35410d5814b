"""From the scores of squares to boxes: one regressor of all classes, then one of each."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from detection.data.module import DataModule
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.box_codes import Loss
from detection.object_scoring.localizer import ObjectScoring
from detection.object_scoring.scored_images import Objects, RandomImages, Scored, ScoredImages
from detection.runtime.distributed import is_first_process
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    TrainingLength,
    step_decay,
)
from detection.training.stage import Stage, mixed

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class BoxOptions:
    """How boxes are learnt from scores; the poster gives the loss only.

    Attributes:
        loss: "l2", half of which is the poster's Euclidean loss, or another of `box_losses`.
        objects: where an image has several of its class: "largest" learns the one of largest area,
            "nearest" the one that the regressor is nearest to. The poster leaves it to the future.
        batch_size: images, for each process.
        length: batches.
        optimizer: ours.
        schedule: ours.
        dropout: of the hidden layers.
        flip: mirror half of the images: their squares change places.
    """

    loss: Loss = "l2"
    objects: Objects = "largest"
    batch_size: int
    length: TrainingLength
    optimizer: OptimizerFactory
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.5, 0.8], factor=0.1)
    dropout: float = 0.0
    flip: bool = True


@dataclass(frozen=True, kw_only=True)
class RegressOptions(BoxOptions):
    """How the regressor of all classes learns; see `BoxOptions`."""

    batch_size: int = 256
    length: TrainingLength = TrainingLength(0.12)
    optimizer: OptimizerFactory = partial(SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)

    def stage(
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "RegressStage":
        """The stage that trains so."""
        return RegressStage(model, data, evaluator, seed, options=self)


@dataclass(frozen=True, kw_only=True)
class ClassWiseOptions(BoxOptions):
    """How each class's own regressor learns on from the shared one; see `BoxOptions` too.

    Attributes:
        min_images: a class of fewer training images keeps the shared regressor.
        batch_size: images of each class, for each process; classes learn side by side.
    """

    min_images: int = 50
    batch_size: int = 32
    length: TrainingLength = TrainingLength(0.005)
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def stage(
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "ClassWiseStage":
        """The stage that trains so."""
        return ClassWiseStage(model, data, evaluator, seed, options=self)


class _RegressorStage(Stage):
    """What both stages share that learn boxes from scores."""

    model: ObjectScoring
    options: BoxOptions

    def __init__(
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int,
        options: BoxOptions,
    ) -> None:  # fmt: skip
        super().__init__(model, data, evaluator, seed)
        self.options = options
        self.images = ScoredImages(model, data, options.objects, options.flip)

    def batches(self) -> list[int]:
        """Of each epoch."""
        epochs, steps = self.options.length.epochs(len(self.images))
        return [steps] * epochs

    def trainer_options(self) -> dict[str, Any]:
        """Other batches in each epoch; one validation, which looks at every square, at the end."""
        epochs = len(self.batches())
        return {
            "max_epochs": epochs,
            "reload_dataloaders_every_n_epochs": 1,
            "check_val_every_n_epoch": epochs,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        return self.optimized(self.options.optimizer, self.options.schedule, self.batches())

    def loader(self, groups: Sequence[NDArray[np.int64]]) -> DataLoader[Scored]:
        """The batches of this epoch, of as many images of each group; each process draws others."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        steps = self.batches()[0]
        drawn = RandomImages(self.images, groups, self.options.batch_size, steps, seed)
        return DataLoader(drawn, batch_size=None)


class RegressStage(_RegressorStage):
    """Learns one regressor for all classes.

    Args:
        model: whose scoring network is trained.
        data: with boxes, whose squares are scored.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "regress"
    options: RegressOptions

    def __init__(
        self,
        model: ObjectScoring,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: RegressOptions = RegressOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed, options)

    def learns(self) -> Sequence[nn.Module]:
        """The shared layers."""
        return [self.model.regressor.shared]

    def train_dataloader(self) -> DataLoader[Scored]:
        """All images at random."""
        return self.loader([np.arange(len(self.images))])

    def training_step(self, batch: Scored, batch_idx: int) -> Tensor:
        """The loss of the boxes."""
        with torch.autocast(self.device.type, enabled=False):  # edges need all their bits
            said = self.model.regressor.by_shared(batch.scores, self.options.dropout)
            loss = batch.loss(said, self.options.loss)
        self.log("regress/box_loss", loss, prog_bar=True, batch_size=len(batch.scores))
        return self.check_finite(loss, f"{len(batch.scores)} images")


class ClassWiseStage(_RegressorStage):
    """Each class of enough images learns on from the shared regressor, all classes side by side.

    Their losses are added, so that each learns as if it were alone.

    Args:
        model: whose shared regressor is trained.
        data: see `RegressStage`.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: the model has no room for regressors of classes.
    """

    name = "class_wise"
    options: ClassWiseOptions

    def __init__(
        self,
        model: ObjectScoring,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: ClassWiseOptions = ClassWiseOptions(),
    ) -> None:
        if not model.regressor.class_wise:
            raise UserError(
                "model.class_wise=false has no regressors for classes to learn: switch off "
                "model.stages.class_wise=null too"
            )
        super().__init__(model, data, evaluator, seed, options)
        labels = self.images.labels
        counts = np.bincount(labels, minlength=model.num_classes)
        self.classes = np.flatnonzero(counts >= options.min_images)
        self.items = [np.flatnonzero(labels == label) for label in self.classes]
        few = [data.class_names[c] for c in np.flatnonzero(counts < options.min_images)]
        if few and is_first_process():
            log.warning(
                "%d of %d classes have fewer than %d training images with boxes and keep the "
                "shared regressor: %s",
                len(few), model.num_classes, options.min_images, ", ".join(few[:8]),
            )  # fmt: skip

    def is_needed(self) -> bool:
        """Not where no class has enough images."""
        return len(self.classes) > 0

    def learns(self) -> Sequence[nn.Module]:
        """The layers of the classes."""
        return [self.model.regressor.weights, self.model.regressor.biases]

    def on_fit_start(self) -> None:
        """Begin at the shared solution, but where a stopped stage goes on."""
        super().on_fit_start()
        labels = torch.from_numpy(self.classes).to(self.device)
        if not self.model.regressor.is_tuned[labels].all():
            self.model.regressor.start_classes(labels)

    def train_dataloader(self) -> DataLoader[Scored]:
        """Images of each class at random."""
        return self.loader(self.items)

    def training_step(self, batch: Scored, batch_idx: int) -> Tensor:
        """The sum of the classes' losses."""
        labels = batch.labels.view(len(self.classes), -1)[:, 0]
        scores = batch.scores.view(len(self.classes), self.options.batch_size, -1)
        with torch.autocast(self.device.type, enabled=False):
            said = self.model.regressor.by_classes(scores, labels, self.options.dropout)
            loss = batch.loss(said.flatten(0, 1), self.options.loss)
        self.log("class_wise/box_loss", loss, prog_bar=True, batch_size=len(batch.scores))
        return self.check_finite(loss * len(self.classes), f"{len(batch.scores)} images")
