"""The stages of a run, one after the other; each is done once, and goes on where it stopped."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers import Logger
from torch import nn

from detection.config.build import build
from detection.data.classification_data import ClassificationData
from detection.data.detection_data import DetectionData
from detection.disk.checkpoints import fill_detector, read_checkpoint, save_detector
from detection.disk.files import read_json, write_json
from detection.errors import UserError
from detection.runs.trainer import CHECKPOINT, make_trainer
from detection.runtime.memory import return_freed_memory
from detection.training.stage import Stage

log = logging.getLogger(__name__)


def run_stages(
    config: dict[str, Any],
    run_dir: Path,
    detector: nn.Module,
    data: DetectionData | ClassificationData,
    parts: dict[str, Any],
    loggers: Sequence[Logger],
) -> dict[str, float]:
    """Run the stages in their order, from the first that is not done; seconds that each took."""
    seconds = {}
    number = 0
    for name, stage_config in config["model"]["stages"].items():
        if not stage_config:  # switched off: model.stages.<name>=null
            continue
        torch.manual_seed(config["seed"])
        done = next((run_dir / "stages").glob(f"*_{name}/done"), None)
        if done:
            number += 1
            fill_detector(detector, read_checkpoint(done.parent))
            seconds[name] = read_json(done)["seconds"]
            log.info("stage %s is done already", name)
            continue
        stage: Stage = build(stage_config, detector=detector, data=data, seed=config["seed"])
        if not stage.is_needed():
            continue
        number += 1
        folder = run_dir / "stages" / f"{number}_{name}"
        seconds[name] = run_stage(stage, folder, config, loggers)
        if stage.global_rank == 0:
            save_detector(folder / "detector.ckpt", detector, data.class_names, parts)
            write_json(folder / "done", {"seconds": seconds[name]})
            (folder / CHECKPOINT).unlink(missing_ok=True)  # the optimiser's state is not needed
        data.trainer = None  # which holds the stage and its optimiser
        del stage
        return_freed_memory()
    return seconds


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
    stage.detector.eval()
    seconds = time.monotonic() - start + stage.seconds_before
    log.info("stage %s took %.0f s", stage.name, seconds)
    return seconds


def check_readable(checkpoint: Path) -> None:
    """Refuse a damaged checkpoint before Lightning meets it."""
    try:
        torch.load(checkpoint, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"checkpoint {checkpoint} is damaged ({str(error).splitlines()[0]}): delete it, and "
            "the stage begins anew"
        ) from None
