"""The base of all stages: how a model is validated, tested and used, its clock, its seeds."""

import math
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.errors import TrainingError, UserError
from detection.evaluation.evaluator import Evaluator, Result
from detection.runtime.distributed import gather_in_order
from detection.runtime.stopwatch import Stopwatch, timed
from detection.training.model import Model, Prediction
from detection.training.schedules import OptimizerFactory, ScheduleFactory, scheduled


class Stage(pl.LightningModule):
    """A model on its data. As it stands it learns nothing, and measures; subclasses learn a part.

    A subclass says what it learns (`learns`), gives training batches and a training step, and
    perhaps another way to validate (`val_dataloader` with `classify`).

    Args:
        model: what is used in the end.
        data: has been set up, and prepared by the model.
        evaluator: of the data's task.
        seed: of everything random; every step draws from the seed and its own number only, so
            that a run that was stopped goes on as if it had not been.

    Attributes:
        result: what the last test came to, in the first process; None before.
        figures: the evaluator's figures of the last validation or test, in every process.
        thresholds: the evaluator's, of the last validation of a finished model.
        seconds: an image, of each part of prediction that names itself (`timed`), and of all;
            of the last test, in every process.
    """

    name = "test"

    def __init__(self, model: Model, data: DataModule, evaluator: Evaluator, seed: int = 0) -> None:
        super().__init__()
        self.model = model
        self.data = data
        self.evaluator = evaluator
        self.seed = seed
        self.seconds_before = 0.0  # of earlier starts of this stage
        self.val_metric = evaluator.metric(model.num_classes)
        self.test_metric = evaluator.metric(model.num_classes)
        self.result: Result | None = None
        self.figures: dict[str, float] = {}
        self.thresholds: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self.clock, self.images_timed = Stopwatch(), 0

    # What a subclass says

    def learns(self) -> Sequence[nn.Module]:
        """The parts of the model that learn; all others stay as they are."""
        return []

    def is_needed(self) -> bool:
        """Whether this stage has something to do for this model."""
        return True

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of the `Trainer` that fits this stage, beside the user's."""
        return {}

    def classify(self, batch: Any) -> tuple[Tensor, Tensor] | None:
        """Logits (R, K) and labels (R,) of a batch of the stage's own `val_dataloader`.

        None: the stage is validated as it is tested, by the evaluator.
        """
        return None

    @property
    def validated_by(self) -> tuple[str, ...]:
        """Figures of its validations, the first of which says most; of the evaluator, one."""
        if type(self).classify is Stage.classify:
            return (f"val_{self.evaluator.headline}",)
        return ("val_loss", "val_accuracy")

    # Validation, test and use, the same for every method

    def configure_model(self) -> None:
        """Free what is learnt and freeze the rest, before any strategy wraps the model."""
        self.model.requires_grad_(False).eval()
        for part in self.learns():
            part.requires_grad_(True).train()

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The images of the val split, if there is one."""
        return self.data.val_dataloader()

    def test_dataloader(self) -> DataLoader[list[Sample]]:
        """The images of the test split."""
        return self.data.test_dataloader()

    def predict_dataloader(self) -> DataLoader[list[Sample]]:
        """The images of the test split."""
        return self.data.predict_dataloader()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Loss and accuracy where the stage classifies; predictions for the metric elsewhere."""
        classified = self.classify(batch)
        if classified is None:
            self._update(self.val_metric, batch)
            return
        logits, labels = classified
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"val_loss": F.cross_entropy(logits, labels), "val_accuracy": accuracy}
        for key, value in values.items():
            self.log(
                f"{self.name}/{key}", value, prog_bar=True, batch_size=len(labels), sync_dist=True
            )

    def test_step(self, batch: list[Sample], batch_idx: int) -> None:
        """Predictions for the metric, and how long they take."""
        with self.clock.running():
            self._update(self.test_metric, batch)
        self.images_timed += len(batch)

    def predict_step(self, batch: list[Sample], batch_idx: int) -> list[Prediction]:
        """A prediction for each image."""
        return self.model.predict(batch)

    def _update(self, metric: Any, batch: list[Sample]) -> None:
        ids = [sample.index for sample in batch]
        with timed("total", self.device):
            predictions = self.model.predict(batch)
        metric.update(predictions, [sample.target for sample in batch], ids)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the evaluator, if it was asked."""
        if self.trainer.sanity_checking or not self.val_metric.update_called:
            return
        learning = self.trainer.state.fn == TrainerFn.FITTING
        with self.val_metric.sync_context():
            self.figures = self.evaluator.figures(self.val_metric, self.data.class_names)
            if not learning:
                self.thresholds = self.evaluator.thresholds(self.val_metric, self.data.class_names)
        self.val_metric.reset()
        headline = self.evaluator.headline
        name = f"{self.name}/val_{headline}" if learning else f"val/{headline}"
        self.log(name, self.figures[headline], prog_bar=True, rank_zero_only=True)

    def on_test_epoch_end(self) -> None:
        """Bring the predictions of all processes together; the first makes a result of them."""
        self.seconds = self._seconds_an_image()
        with self.test_metric.sync_context():
            if self.trainer.is_global_zero:
                self.result = self.evaluator.result(self.test_metric, self.data)
                self.figures = self.result.figures
            else:
                self.figures = self.evaluator.figures(self.test_metric, self.data.class_names)
        headline = self.evaluator.headline
        self.log(f"test/{headline}", self.figures[headline], rank_zero_only=True)

    def _seconds_an_image(self) -> dict[str, float]:
        """Of all processes, by part."""
        own = (self.images_timed, self.clock.seconds())
        every = gather_in_order([(self.global_rank, own)])
        images = max(1, sum(count for count, _ in every))
        return {
            part: sum(seconds.get(part, 0.0) for _, seconds in every) / images
            for part in dict.fromkeys(part for _, seconds in every for part in seconds)
        }

    # Clock, seeds and checks

    def on_fit_start(self) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the time taken so far, and how many processes and batches share a step."""
        checkpoint["seconds"] = self.seconds_before + time.monotonic() - self.started
        checkpoint["processes"] = self.trainer.world_size
        checkpoint["accumulated"] = self.trainer.accumulate_grad_batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting.

        Raises:
            UserError: more or fewer processes or batches, with which a step is of another size.
        """
        self.seconds_before = float(checkpoint["seconds"])
        for key, option, now in (
            ("processes", "devices", self.trainer.world_size),
            ("accumulated", "accumulate_grad_batches", self.trainer.accumulate_grad_batches),
        ):
            before = checkpoint.get(key, now)  # of an older version
            if before != now:
                raise UserError(
                    f"stage {self.name} was begun with trainer.{option}={before} and cannot go on "
                    f"with {now}: give that, or choose another run_dir"
                )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step's number, and the batch's within the step."""
        within = batch_idx % self.trainer.accumulate_grad_batches
        numbers = [within] if within else []
        torch.manual_seed(mixed(self.seed, self.global_step, self.global_rank, *numbers))

    def optimized(
        self, make: OptimizerFactory, schedule: ScheduleFactory | None, batches: Sequence[int]
    ) -> tuple[list[Optimizer], list[Any]]:
        """An optimiser of all that is free, and its learning rates; see `scheduled`."""
        free = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return self.scheduled(make(free), schedule, batches)

    def scheduled(
        self, optimizer: Optimizer, schedule: ScheduleFactory | None, batches: Sequence[int]
    ) -> tuple[list[Optimizer], list[Any]]:
        """An optimiser and its learning rates over a whole training, as Lightning takes them.

        Args:
            optimizer: of what learns.
            schedule: see `schedules.scheduled`.
            batches: of each epoch; several are a step where gradients are accumulated.
        """
        together = self.trainer.accumulate_grad_batches
        return scheduled(optimizer, schedule, sum(math.ceil(n / together) for n in batches))

    def check_finite(self, loss: Tensor, source: str) -> Tensor:
        """The loss, if it is a number.

        Args:
            loss: of a step.
            source: what it was computed from.

        Raises:
            TrainingError: it is not a number; names the step and its source.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of stage {self.name} is {loss.item()} at step {self.global_step} "
                f"({source}): look at these images, or lower its learning rate: delete the folder "
                f"stages/*_{self.name} of the run, and start again with the same run_dir= and "
                f"another model.stages.{self.name}.optimizer.lr="
            )
        return loss


def mixed(*numbers: int) -> int:
    """One seed from several numbers, well mixed.

    >>> mixed(1, 2) != mixed(2, 1)
    True
    """
    generator = torch.Generator().manual_seed(0)
    value = 0
    for number in numbers:
        value = (value * 6364136223846793005 + number + 1442695040888963407) % 2**63
        value = int(torch.randint(2**62, (), generator=generator.manual_seed(value)))
    return value
