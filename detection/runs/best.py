"""Each stage goes back to the weights of its best validation, and may end when none is better."""

import logging
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.trainer.states import TrainerFn

from detection.config.names import did_you_mean
from detection.disk.checkpoints import write_whole
from detection.disk.torch_files import load_plain
from detection.errors import UserError
from detection.training.stage import Stage

log = logging.getLogger(__name__)

BEST = "best.ckpt"


class KeepBest(pl.Callback):
    """Chooses among the validations of each stage that learns by gradients.

    A stage that classifies windows or images has `val_loss` and `val_accuracy`; another is
    validated as it is tested, and has the evaluator's figures (`val_map`, `val_ap/cat`). One
    without validation images, and one that is fitted in a single pass (SVMs, ridge regression),
    is left as it is.

    Args:
        figure: to choose by, of all stages or {stage: figure}. None, and stages that are not
            named: `val_loss`, or the evaluator's headline.
        patience: a stage ends after so many validations in a row that are no better; None: it
            runs its whole length.

    Raises:
        UserError: a figure on test images, or a patience under 1.
    """

    def __init__(
        self, figure: str | dict[str, str] | None = None, patience: int | None = None
    ) -> None:
        asked = figure.values() if isinstance(figure, dict) else [figure]
        for name in filter(None, asked):
            if not name.startswith("val_"):
                raise UserError(
                    f"callbacks.best.figure={name}: weights are chosen on validation images, by a "
                    "figure such as val_loss, val_accuracy or val_map"
                )
        if patience is not None and patience < 1:
            raise UserError(f"callbacks.best.patience={patience}: at least one validation")
        self.asked, self.patience = figure, patience
        self.figure = ""
        self.folder = Path()
        self.best: float | None = None
        self.best_epoch = self.worse = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Begin a stage.

        Raises:
            UserError: it has no such figure.
        """
        assert isinstance(pl_module, Stage)
        if stage != "fit" or not pl_module.automatic_optimization:
            return
        known, name = pl_module.validated_by, pl_module.name
        figure = self.asked.get(name) if isinstance(self.asked, dict) else self.asked
        classifies = "val_loss" in known
        if figure and classifies != (figure in ("val_loss", "val_accuracy")):
            raise UserError(
                f"callbacks.best.figure={figure}: stage {name} is validated by {known[0]}: "
                f"callbacks.best.figure={{{name}: {known[0]}}} says so of this stage alone"
            )
        self.figure = figure or known[0]
        self.folder = Path(trainer.default_root_dir)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A stage that had ended before it was stopped goes no further."""
        self.end_if_worse(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are better than all before."""
        assert isinstance(pl_module, Stage)
        fits = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fits or not pl_module.automatic_optimization:
            return
        value = self.value_of(trainer, pl_module)
        if self.best is not None and value >= self.best:
            self.worse += 1
            self.end_if_worse(trainer)
            return
        self.best, self.best_epoch, self.worse = value, trainer.current_epoch + 1, 0
        if trainer.is_global_zero:
            write_whole(self.folder / BEST, {"weights": pl_module.model.state_dict()})
        trainer.strategy.barrier("best weights")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go back to the best."""
        assert isinstance(pl_module, Stage)
        if self.best is None:
            if pl_module.automatic_optimization:
                log.warning(
                    "%s was not validated, so the last of its weights are kept: callbacks.best "
                    "needs validation images (data.val_images)", pl_module.name,
                )  # fmt: skip
            return
        path = self.folder / BEST
        content = load_plain(path, f"{path} is damaged: delete its folder")
        pl_module.model.load_state_dict(content["weights"])
        trainer.strategy.barrier("best weights are read")
        if trainer.is_global_zero:
            path.unlink(missing_ok=True)
        log.info(
            "%s: the weights after epoch %d of %d are kept (%s %.4g)", pl_module.name,
            self.best_epoch, trainer.current_epoch, self.figure, abs(self.best),
        )  # fmt: skip

    def value_of(self, trainer: pl.Trainer, stage: Stage) -> float:
        """The figure of the last validation, the lower the better.

        Raises:
            UserError: there is no such figure.
        """
        figures = {f"val_{name}": value for name, value in stage.figures.items()}
        own = f"{stage.name}/"
        figures |= {
            name.removeprefix(own): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{own}val_")
        }
        if self.figure not in figures:
            few = [name for name in figures if name.count("/") == 0][:12]
            raise UserError(
                f"callbacks.best.figure={self.figure}: stage {stage.name} has no such figure"
                f"{did_you_mean(self.figure, figures)}; it has {', '.join(few)}"
            )
        is_cost = "loss" in self.figure or "error" in self.figure
        return figures[self.figure] if is_cost else -figures[self.figure]

    def end_if_worse(self, trainer: pl.Trainer) -> None:
        """End the stage when its patience is at an end."""
        if self.patience is not None and self.worse >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a stopped stage goes on with."""
        return {"best": self.best, "epoch": self.best_epoch, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.best = state_dict["best"]
        self.best_epoch, self.worse = state_dict["epoch"], state_dict["worse"]
