"""A run: config → data, detector, stages → figures and report; it goes on where it stopped."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from torch import nn

from detection.build import build
from detection.checkpoints import (
    fill_detector,
    make_detector,
    read_checkpoint,
    restore_detector,
    save_detector,
)
from detection.data.detection_data import DetectionData
from detection.errors import UserError
from detection.files import read_json, write_json, write_text
from detection.memory import keep_freed_memory
from detection.report.outcome import Outcome, report_outcome
from detection.run_config import plain, refuse_other_config
from detection.stage import DetectionStage
from detection.trainers import CHECKPOINT, make_trainer

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> float:
    """Run every stage that is not done yet, test, and report; the optimised metric.

    Raises:
        UserError: a mistake in the config or the data.
        TrainingError: a loss that is not finite.
    """
    config = plain(cfg)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    on_first_process_only()
    keep_freed_memory()
    refuse_other_config(run_dir, config)
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = read_data(config["data"], config["model"]["detector"]["search"])
    parts = {
        "backbone": config["backbone"],
        "features": config["model"]["features"],
        "detector": config["model"]["detector"],
        "data": config["data"],
    }
    detector = make_detector(parts, len(data.class_names))
    warn_without_weights(config["backbone"])
    loggers = make_loggers(config, run_dir)
    seconds = run_stages(config, run_dir, detector, data, parts, loggers)
    outcome = test(config, run_dir, detector, data, loggers)
    if is_first_process():
        save_detector(run_dir / "detector.ckpt", detector, data.class_names, parts)
        outcome.seconds |= seconds
        figures = report_outcome(outcome, run_dir, config, loggers)
        return figures[config["optimized_metric"]]
    return 0.0


def evaluate(cfg: DictConfig) -> float:
    """Test the detector of a checkpoint, and report; its mAP."""
    config = plain(cfg)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    on_first_process_only()
    keep_freed_memory()
    content = read_checkpoint(Path(config["ckpt"]))
    detector = restore_detector(content)
    data_config = config.get("data") or content["config"]["data"]
    data_config = {**data_config, "classes": content["class_names"]}
    if config["precision"]:
        detector.precision = config["precision"]  # type: ignore[assignment]
    search = content["config"]["detector"]["search"]
    data = read_data(data_config, search, splits=("test",))
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    outcome = test(config, run_dir, detector, data, [])
    if is_first_process():
        config["data"] = data_config
        return report_outcome(outcome, run_dir, config, [])["test/map"]
    return 0.0


def read_data(
    config: dict[str, Any],
    search: dict[str, Any],
    splits: tuple[str, ...] = ("train", "val", "test"),
) -> DetectionData:
    """The data, with its proposals."""
    data: DetectionData = build(config)
    data.read(splits)
    data.find_proposals(build(search))
    return data


def run_stages(
    config: dict[str, Any],
    run_dir: Path,
    detector: nn.Module,
    data: DetectionData,
    parts: dict[str, Any],
    loggers: list[Logger],
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
        stage: DetectionStage = build(
            stage_config, detector=detector, data=data, seed=config["seed"]
        )
        if not stage.is_needed():
            continue
        number += 1
        folder = run_dir / "stages" / f"{number}_{name}"
        seconds[name] = run_stage(stage, folder, config, loggers)
        if stage.global_rank == 0:
            save_detector(folder / "detector.ckpt", detector, data.class_names, parts)
            write_json(folder / "done", {"seconds": seconds[name]})
            (folder / CHECKPOINT).unlink(missing_ok=True)  # the optimiser's state is not needed
    return seconds


def run_stage(
    stage: DetectionStage, folder: Path, config: dict[str, Any], loggers: list[Logger]
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


def test(
    config: dict[str, Any],
    run_dir: Path,
    detector: nn.Module,
    data: DetectionData,
    loggers: list[Logger],
) -> Outcome:
    """Detect in every test image, each once whatever the number of processes."""
    detector.requires_grad_(False)
    stage = DetectionStage(detector, data, config["seed"])
    options = {"enable_checkpointing": False}
    trainer = make_trainer(
        config["trainer"], config["callbacks"], run_dir / "stages" / "test", loggers, options
    )
    start = time.monotonic()
    trainer.test(stage, verbose=False)
    seconds = time.monotonic() - start
    return Outcome(data, stage.curves, stage.tables, {"test": seconds})


def make_loggers(config: dict[str, Any], run_dir: Path) -> list[Logger]:
    """The user's loggers, told of the config."""
    if not is_first_process():
        return []
    loggers: list[Logger] = [
        build(c, save_dir=str(run_dir)) for c in config["logger"].values() if c
    ]
    for logger in loggers:
        logger.log_hyperparams(config)
    return loggers


def warn_without_weights(backbone: dict[str, Any]) -> None:
    """Say plainly what to expect of a network that starts from nothing."""
    if backbone["weights"] is None:
        log.warning(
            "the backbone has no pre-trained weights: it learns from this data alone, in a "
            "stage of its own. On a few hundred photographs expect a small part of the published "
            "accuracy; "
            "backbone=alexnet backbone.weights=imagenet starts from ImageNet"
        )


def is_first_process() -> bool:
    """Whether this process writes and speaks for the run."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def on_first_process_only() -> None:
    """Other processes of the same run say warnings only."""
    if not is_first_process():
        logging.getLogger("detection").setLevel(logging.WARNING)
