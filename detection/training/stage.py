"""What all stages share: their clock, their seeds, and what they refuse."""

import time
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.errors import TrainingError, UserError


class Stage(pl.LightningModule):
    """A detector or classifier on its data; subclasses each learn one part, or test.

    Args:
        detector: what is used in the end.
        data: has been read.
        seed: of everything random; every step draws from the seed and its own number alone, so
            that a run that was stopped goes on as if it had not been.
    """

    name = "test"

    def __init__(self, detector: nn.Module, data: pl.LightningDataModule, seed: int = 0) -> None:
        super().__init__()
        self.detector = detector
        self.data = data
        self.seed = seed
        self.seconds_before = 0.0  # of earlier starts of this stage

    def setup(self, stage: str) -> None:
        """Tell the data of the trainer: its loaders give each process its own share."""
        self.data.trainer = self.trainer

    def is_needed(self) -> bool:
        """Whether this stage has something to do for this detector."""
        return True

    def trainer_options(self) -> dict[str, Any]:
        """Arguments of the `Trainer` that fits this stage, beside the user's."""
        return {}

    def log_validation(self, logits: Tensor, labels: Tensor) -> None:
        """Log loss and accuracy of (R, K) logits, for stages that validate by classifying."""
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        values = {"val_loss": F.cross_entropy(logits, labels), "val_accuracy": accuracy}
        for key, value in values.items():
            self.log(
                f"{self.name}/{key}", value, prog_bar=True, batch_size=len(labels), sync_dist=True
            )

    def on_fit_start(self) -> None:
        """Start the clock."""
        self.started = time.monotonic()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Remember the time taken so far, and how many processes share a step."""
        checkpoint["seconds"] = self.seconds_before + time.monotonic() - self.started
        checkpoint["processes"] = self.trainer.world_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting.

        Raises:
            UserError: another number of processes, with which a step is of another size.
        """
        self.seconds_before = float(checkpoint["seconds"])
        before, now = checkpoint.get("processes"), self.trainer.world_size
        if before not in (now, None):  # None: of an older version
            raise UserError(
                f"stage {self.name} was begun on {before} processes and cannot go on with {now}: "
                f"give trainer.devices={before}, or choose another run_dir"
            )

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
