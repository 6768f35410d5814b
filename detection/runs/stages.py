"""The stages of a run, one after the other; each is done once, and goes on where it stopped."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger

from detection.config.build import build
from detection.data.module import DataModule
from detection.disk.checkpoints import load_weights, read_checkpoint, save_model
from detection.disk.files import read_json, write_json
from detection.disk.run_files import NAME
from detection.disk.torch_files import are_numbers, load_plain
from detection.errors import TrainingError, UserError
from detection.evaluation.evaluator import Evaluator
from detection.runs.trainer import CHECKPOINT, make_trainer
from detection.runtime.memory import return_freed_memory
from detection.training.model import Model
from detection.training.stage import Stage

log = logging.getLogger(__name__)

Context = tuple[Model, DataModule, Evaluator]


def run_stages(
    config: dict[str, Any],
    run_dir: Path,
    context: Context,
    tree: dict[str, Any],
    loggers: Sequence[Logger],
) -> dict[str, float]:
    """Run the stages in their order, from the first that is not done; seconds that each took.

    Args:
        config: of the run.
        run_dir: gets a folder for each stage.
        context: the model, its data, and their evaluator.
        tree: config of the model, for checkpoints.
        loggers: beside the CSV file that every stage has.
    """
    model, data, evaluator = context
    seconds = {}
    number = 0
    for name, stage_config in config["model"]["stages"].items():
        if not stage_config:  # switched off: model.stages.<name>=null
            continue
        torch.manual_seed(config["seed"])
        done = find_done(run_dir / "stages", name)
        if done:
            number += 1
            load_weights(model, read_checkpoint(done.parent))
            model.prepare(data)
            seconds[name] = seconds_of(done)
            log.info("stage %s is done already", name)
            continue
        stage: Stage = build(stage_config).stage(model, data, evaluator, config["seed"])
        if not stage.is_needed():
            continue
        number += 1
        folder = run_dir / "stages" / f"{number}_{name}"
        seconds[name] = run_stage(stage, folder, config, loggers)
        check_learnt(model, name, folder)
        model.prepare(data)
        if stage.global_rank == 0:
            save_model(folder / NAME, model, tree, config["data"], data.class_names)
            write_json(folder / "done", {"seconds": seconds[name]})
            (folder / CHECKPOINT).unlink(missing_ok=True)  # the optimiser's state is not needed
        del stage
        return_freed_memory()
    return seconds


def find_done(stages: Path, name: str) -> Path | None:
    """The file that says that a stage is done, of a folder such as `3_svm`; None: it is not."""
    for done in sorted(stages.glob("*/done")):
        number, _, whole = done.parent.name.partition("_")
        if number.isdigit() and whole == name:
            return done
    return None


def run_stage(
    stage: Stage, folder: Path, config: dict[str, Any], loggers: Sequence[Logger]
) -> float:
    """Fit one stage, from its last checkpoint if there is one; the seconds it took."""
    options = stage.trainer_options()
    trainer = make_trainer(config["trainer"], config["callbacks"], folder, loggers, options)
    checkpoint = folder / CHECKPOINT
    log.info("stage %s %s", stage.name, "goes on" if checkpoint.exists() else "begins")
    start = time.monotonic()
    resume = str(checkpoint) if checkpoint.exists() else None
    if resume:
        check_readable(checkpoint)
    try:
        trainer.fit(stage, ckpt_path=resume, weights_only=True)
    except SystemExit:  # how Lightning leaves after Ctrl-C
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise
    stage.model.eval()
    seconds = time.monotonic() - start + stage.seconds_before
    log.info("stage %s took %.0f s", stage.name, seconds)
    return seconds


def seconds_of(done: Path) -> float:
    """How long a stage took that left this file.

    Raises:
        UserError: the file is damaged.
    """
    content = read_json(done)
    if not isinstance(content, dict) or not isinstance(content.get("seconds"), int | float):
        raise UserError(f"{done} is damaged: delete it, and its stage is looked at anew")
    return float(content["seconds"])


def check_learnt(model: Model, name: str, folder: Path) -> None:
    """Check that what a stage has learnt are numbers, before it counts as done.

    Raises:
        TrainingError: they are not.
    """
    for weight, value in model.state_dict().items():
        if not are_numbers(value):
            raise TrainingError(
                f"stage {name} diverged: {weight} holds what is no number. Delete {folder}, and "
                "start again with the same run_dir= and another "
                f"model.stages.{name}.optimizer.lr= or what else it learns by"
            )


def check_readable(checkpoint: Path) -> None:
    """Check a checkpoint before Lightning meets it; a damaged one is refused."""
    try:
        load_plain(checkpoint, f"checkpoint {checkpoint} is damaged")
    except UserError as error:
        raise UserError(f"{error}. Delete it, and the stage begins anew") from None
