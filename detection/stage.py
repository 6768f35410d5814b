"""What all stages share: how a detector is validated, tested and used, written once."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detection.combine.nms import Detections
from detection.data.detection_data import DetectionData
from detection.data.samples import Sample
from detection.errors import TrainingError
from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.voc_ap import PRCurve


class DetectionStage(pl.LightningModule):
    """A detector on its data. As it stands it tests; subclasses each learn one part.

    Args:
        detector: `detector([image], [proposals])` gives a list of detections.
        data: has been read, and has its proposals.
        seed: of everything random; every step draws from the seed and its own number alone, so
            that a run that was stopped goes on as if it had not been.
    """

    name = "test"

    def __init__(self, detector: nn.Module, data: DetectionData, seed: int = 0) -> None:
        super().__init__()
        self.detector = detector
        self.data = data
        self.seed = seed
        num_classes = len(data.class_names)
        self.seconds_before = 0.0  # of earlier starts of this stage
        self.curves: list[PRCurve] = []
        self.tables = (torch.zeros(0, 7), torch.zeros(0, 7))
        self.val_map = data.metric(num_classes)
        self.test_map = data.metric(num_classes)

    def is_needed(self) -> bool:
        """Whether this stage has something to do for this detector."""
        return True

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of the `Trainer` that fits this stage, beside the user's."""
        return {}

    def forward(self, sample: Sample) -> Detections:
        """Detections in one image."""
        result: list[Detections] = self.detector([sample.image], [sample.proposals])
        return result[0]

    # Validation and test

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The images of the val split, if there is one."""
        return self.data.loader("val") if self.data.has_val else []

    def test_dataloader(self) -> DataLoader[Sample]:
        """The images of the test split."""
        return self.data.loader("test")

    def validation_step(self, sample: Any, index: int) -> None:
        """Detect in one image."""
        take_in(self.val_map, self(sample), sample)

    def on_validation_epoch_end(self) -> None:
        """Log the mAP so far, unless this stage validates otherwise."""
        if len(self.val_map.images):
            value = self.val_map.compute()["map"]
            self.val_map.reset()
            self.log(f"{self.name}/val_map", value.float(), prog_bar=True, rank_zero_only=True)

    def log_validation(self, logits: Tensor, labels: Tensor) -> None:
        """Log loss and accuracy of (R, C + 1) logits, for stages that validate on windows."""
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"val_loss": F.cross_entropy(logits, labels), "val_accuracy": accuracy}
        for key, value in values.items():
            self.log(
                f"{self.name}/{key}", value, prog_bar=True, batch_size=len(labels), sync_dist=True
            )

    def test_step(self, sample: Sample, index: int) -> None:
        """Detect in one image."""
        take_in(self.test_map, self(sample), sample)

    def on_test_epoch_end(self) -> None:
        """Bring the detections of all processes together."""
        with self.test_map.sync_context():
            self.curves = self.test_map.curves()
            self.tables = self.test_map.tables()
        value = self.test_map.summary(self.curves, "area")["map"]
        self.log("test/map_area", value.float(), rank_zero_only=True)

    def predict_step(self, sample: Sample, index: int) -> Detections:
        """Detections in one image."""
        return self(sample)

    # Training

    def on_fit_start(self) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the time taken so far."""
        checkpoint["seconds"] = self.seconds_before + time.monotonic() - self.started

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting."""
        self.seconds_before = float(checkpoint["seconds"])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed dropout by the step's number."""
        torch.manual_seed(mixed(self.seed, self.global_step, self.global_rank))

    def refuse_non_finite(self, loss: Tensor, what: str) -> Tensor:
        """The loss, if it is a number.

        Raises:
            TrainingError: it is not; names the step and what it was computed from.
        """
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss of stage {self.name} is {loss.item()} at step {self.global_step} "
                f"({what}): lower its learning rate, or look at these images. The last good "
                "checkpoint is kept; the same run_dir= goes on from it"
            )
        return loss


def take_in(metric: VOCMeanAveragePrecision, found: Detections, sample: Sample) -> None:
    """Update a metric with one image."""
    truth = {"boxes": sample.boxes, "labels": sample.labels, "difficult": sample.difficult}
    metric.update([found], [truth], [sample.index])


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
