"""A `Trainer` for each stage, and the loggers of a run."""

import inspect
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.errors import InstantiationException
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger
from pytorch_lightning.plugins.io import TorchCheckpointIO

from detection.config.build import build
from detection.config.names import did_you_mean
from detection.disk.checkpoints import write_whole
from detection.disk.torch_files import first_sentence
from detection.errors import UserError
from detection.runtime.distributed import is_first_process
from detection.runtime.line_progress import LineProgress
from detection.runtime.tracking import finish_wandb

CHECKPOINT = "last.ckpt"


def make_trainer(
    config: dict[str, Any],
    callbacks: dict[str, Any],
    folder: Path,
    loggers: Sequence[Logger],
    options: dict[str, Any],
) -> pl.Trainer:
    """The trainer of one stage.

    Args:
        config: of `pl.Trainer`, by the user.
        callbacks: configs by name; None switches one off.
        folder: of the stage.
        loggers: beside the CSV file that every stage has.
        options: of the stage (see `Stage.trainer_options`).
    """
    quieten()
    chosen: list[pl.Callback] = [build(c) for c in callbacks.values() if c]
    chosen.append(RichProgressBar() if sys.stdout.isatty() else LineProgress())
    if options.get("enable_checkpointing", True):
        chosen.append(last_checkpoint(folder))
    curves = CSVLogger(str(folder), name="curves", version=next_part(folder / "curves"))
    defaults = {
        "default_root_dir": str(folder),
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,  # every loader takes its own share
        "enable_model_summary": False,
        "enable_progress_bar": sys.stdout.isatty(),
    }
    arguments = defaults | on_this_machine(config) | options
    return build(  # type: ignore[no-any-return]
        arguments, callbacks=chosen, logger=[curves, *loggers], plugins=[WholeCheckpoints()]
    )


def on_this_machine(config: dict[str, Any]) -> dict[str, Any]:
    """The user's options; `accelerator: auto` is a GPU of CUDA's kind or the processor.

    Apple's has no float64, in which boxes are suppressed and merged as the originals do.
    """
    if config.get("accelerator") == "auto" and not torch.cuda.is_available():
        return {**config, "accelerator": "cpu"}
    return config


def check_trainer(config: dict[str, Any], callbacks: dict[str, Any]) -> None:
    """Check the user's options of the `Trainer`, by making one and its callbacks.

    Raises:
        UserError: an option that there is not, a device that is not here, a way of starting
            processes that needs models to be pickled, or a choice by test images.
    """
    quieten()
    for name in ("spawn", "fork", "notebook"):
        if name in str(config.get("strategy", "")):
            raise UserError(
                f"trainer.strategy={config['strategy']}: processes are started anew, not copied: "
                "use trainer=ddp"
            )
    chosen = [build(c) for c in callbacks.values() if c]
    for name, callback in zip((n for n, c in callbacks.items() if c), chosen, strict=True):
        if "test" in str(getattr(callback, "monitor", "")):
            raise UserError(
                f"callbacks.{name}.monitor={callback.monitor}: nothing is chosen by a figure on "
                "test images; callbacks=best chooses by validation in every stage"
            )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False,
             "enable_progress_bar": False}  # fmt: skip
    known = set(inspect.signature(pl.Trainer).parameters)
    for name in (n for n in config if not n.startswith("_") and n not in known):
        raise UserError(f"there is no option 'trainer.{name}'{did_you_mean(name, known)}")
    try:
        build({**on_this_machine(config), **quiet}, callbacks=chosen)
    except (MisconfigurationException, ValueError, RuntimeError, InstantiationException) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise UserError(
            f"trainer: {first_sentence(cause)} (`nvidia-smi` lists the GPUs that are here; "
            "trainer=cpu takes the processor)"
        ) from None


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside the last one, and then in its place.

    Lightning's own goes by way of the folder of temporary files: on another disk it is copied over
    the last one, and a stop meanwhile leaves neither.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write it whole.

        Raises:
            UserError: the disk is full; the last one is kept.
        """
        write_whole(Path(path), checkpoint)


@contextmanager
def make_loggers(config: dict[str, Any], run_dir: Path) -> Iterator[list[Logger]]:
    """The user's loggers, which know the config; they are finished at the end.

    A second job in the same process would otherwise go on in the first one's W&B run. In other
    processes than the first there are none.
    """
    if not is_first_process():
        yield []
        return
    loggers: list[Logger] = [
        build(c, save_dir=str(run_dir)) for c in config["logger"].values() if c
    ]
    status = "failed"
    try:
        for logger in loggers:
            logger.log_hyperparams(config)
        yield loggers
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)
        finish_wandb(0 if status == "success" else 1)


def last_checkpoint(folder: Path) -> ModelCheckpoint:
    """Keeps the state after the last finished epoch, from which a stopped stage goes on."""
    return ModelCheckpoint(
        dirpath=folder,
        filename=CHECKPOINT.removesuffix(".ckpt"),
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def next_part(folder: Path) -> str:
    """A name for this start's curves: a stage that was stopped has several."""
    return f"part_{len(list(folder.glob('part_*')))}"


def quieten() -> None:
    """Keep Lightning's advice out of the log; each filter says why."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    advice = (
        ".*does not have many workers.*",  # data.num_workers is the user's choice
        ".*Checkpoint directory .* exists and is not empty.*",  # a resumed stage
        ".*is smaller than the logging interval.*",  # small data has short epochs
        ".*Total length of `list` across ranks is zero.*",  # no validation in this stage
        ".*Experiment logs directory .* exists and is not empty.*",  # a new part each start
        ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",  # inside Lightning
        ".*Your `IterableDataset` has `__len__` defined.*",  # our chunks know their length
        ".*`LightningModule.configure_optimizers` returned `None`.*",  # SVMs and ridge regression
        ".*module\\(s\\) in eval mode at the start of training.*",  # the same
    )
    for message in advice:
        warnings.filterwarnings("ignore", message)
