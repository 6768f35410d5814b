"""Progress of training and testing as lines, for log files and pipes."""

import logging
import time
from typing import Any

import pytorch_lightning as pl

log = logging.getLogger(__name__)


class LineProgress(pl.Callback):
    """A line every few seconds: stage, step, what the progress bar shows, time left.

    Args:
        seconds: between lines.
    """

    def __init__(self, seconds: float = 30.0) -> None:
        self.seconds = seconds
        self.start_batch = 0
        self.last = time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = self.last = time.monotonic()
        self.start_batch = self.batches(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any
    ) -> None:
        """Tell how far it is, if it is time."""
        if not self.is_time(trainer):
            return
        done, total = self.batches(trainer), self.total(trainer)
        left = (self.last - self.started) / max(1, done - self.start_batch) * (total - done)
        log.info(
            "%s: step %d/%d, %s, %.0f s left",
            pl_module.name,
            done,
            total,
            self.values(trainer),
            left,
        )

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start another clock."""
        self.looking_since = time.monotonic()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.looking_since = self.last = time.monotonic()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any
    ) -> None:
        """Tell how far it is, if it is time."""
        name = f"{getattr(pl_module, 'name', '')}, validation"
        self.tell_look(trainer, name, rest[2] + 1, sum(trainer.num_val_batches))

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *rest: Any
    ) -> None:
        """Tell how far it is, if it is time."""
        self.tell_look(trainer, "test", rest[2] + 1, sum(trainer.num_test_batches))

    def tell_look(self, trainer: pl.Trainer, name: str, done: int, total: float) -> None:
        """A line on a pass that does not train, if it is time."""
        if self.is_time(trainer):
            left = (self.last - self.looking_since) / done * (total - done)
            log.info("%s: %d/%d, %.0f s left", name, done, total, left)

    def is_time(self, trainer: pl.Trainer) -> bool:
        """Whether the last line is old enough; the next is counted from now."""
        now = time.monotonic()
        if now - self.last < self.seconds or not trainer.is_global_zero:
            return False
        self.last = now
        return True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep quiet but for the last validation of a stage."""
        last = trainer.current_epoch + 1 == trainer.max_epochs
        if last and trainer.is_global_zero and not trainer.sanity_checking:
            log.info("%s: %s", getattr(pl_module, "name", ""), self.values(trainer))

    @staticmethod
    def values(trainer: pl.Trainer) -> str:
        """What the progress bar would show."""
        metrics = {k: v for k, v in trainer.progress_bar_metrics.items() if k != "v_num"}
        return ", ".join(f"{k.rpartition('/')[2]} {v:.4g}" for k, v in metrics.items())

    @staticmethod
    def batches(trainer: pl.Trainer) -> int:
        """Training batches done in all epochs."""
        return trainer.fit_loop.epoch_loop.total_batch_idx + 1

    @staticmethod
    def total(trainer: pl.Trainer) -> int:
        """Training batches to do in all; epochs may differ by a batch."""
        expected = int(trainer.num_training_batches * (trainer.max_epochs or 1))
        return max(expected, LineProgress.batches(trainer))
