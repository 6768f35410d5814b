"""A run: config → data, detector, stages → figures and report; it goes on where it stopped."""

import logging
import os
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger
from torch import nn

from detection.classification.classifier import Classifier
from detection.classification.testing import ClassificationTest, try_views
from detection.combine.ensemble import Committee
from detection.config.build import build
from detection.config.plain import plain
from detection.data.classification_data import ClassificationData
from detection.data.detection_data import DetectionData
from detection.disk.checkpoints import (
    make_detector,
    read_checkpoint,
    restore_detector,
    save_detector,
)
from detection.disk.files import write_text
from detection.errors import UserError
from detection.evaluation.classification import ClassificationOutcome
from detection.evaluation.detection import Outcome
from detection.evaluation.multi_label import MultiLabelOutcome
from detection.runs.repeats import of_each_split, run_on_splits
from detection.runs.resume import (
    DECISIVE,
    refuse_other_config,
    warn_without_weights,
)
from detection.runs.stages import run_stages
from detection.runs.trainer import make_trainer
from detection.runtime.memory import keep_freed_memory
from detection.training.detection_stage import DetectionStage

log = logging.getLogger(__name__)

Data = DetectionData | ClassificationData


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
    splits = of_each_split(config)
    # of a split that is done the figures are taken as they are, whatever the views
    refuse_other_config(run_dir, config, (*DECISIVE, "views") if splits else DECISIVE)
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    loggers = make_loggers(config, run_dir)
    if splits:
        figures = run_on_splits(config, run_dir, loggers, train_once)
    else:
        figures = train_once(config, run_dir, loggers)
    return figures[config["optimized_metric"]] if is_first_process() else 0.0


def train_once(
    config: dict[str, Any], run_dir: Path, loggers: Sequence[Logger] = ()
) -> dict[str, float]:
    """One run; its figures in the first process, nothing in others."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data = read_data(config["data"], config["model"]["detector"])
    parts = {
        "backbone": config["backbone"],
        "features": config["model"]["features"],
        "detector": config["model"]["detector"],
        "data": {k: v for k, v in config["data"].items() if k != "augmentation"},
        "views": config.get("views") or config["model"].get("views"),
    }
    if isinstance(data, DetectionData):
        warn_without_weights(config)
    detectors: dict[Path, nn.Module] = {}
    seconds: Counter[str] = Counter()
    for folder, seed in member_folders(config, run_dir).items():
        if detectors:
            pl.seed_everything(seed, workers=True, verbose=False)
        detector = make_detector(parts, len(data.class_names))
        first = not detectors  # the others of a committee are like it
        if first and isinstance(detector, Classifier) and isinstance(data, ClassificationData):
            try_views(build(parts["views"]), detector, data.side_px)
        seconds.update(run_stages({**config, "seed": seed}, folder, detector, data, parts, loggers))
        detectors[folder] = detector
    outcome = test(config, run_dir, as_one(list(detectors.values())), data, parts["views"], loggers)
    if not is_first_process():
        return {}
    for folder, detector in detectors.items():
        save_detector(folder / "detector.ckpt", detector, data.class_names, parts)
    outcome.seconds = {**seconds, **outcome.seconds}
    return outcome.report(run_dir, config, loggers)


def member_folders(config: dict[str, Any], run_dir: Path) -> dict[Path, int]:
    """Folder and seed of each network that is trained: of the run, or of `members` of them."""
    seed, count = config["seed"], config["members"]
    if count < 1:
        raise UserError(f"members={count}: at least one network is trained")
    if count == 1:
        return {run_dir: seed}
    return {run_dir / f"model_{n + 1}": seed + n for n in range(count)}


def as_one(members: Sequence[nn.Module]) -> nn.Module:
    """The detector, or the committee of several classifiers.

    Raises:
        UserError: there are several, and not all are classifiers.
    """
    if len(members) == 1:
        return members[0]
    if not all(isinstance(member, Classifier) for member in members):
        raise UserError("several classifiers are tested as one, but only one detector")
    return Committee(members)  # type: ignore[arg-type]


def evaluate(cfg: DictConfig) -> float:
    """Test the detector or classifier of a checkpoint, or a committee of several; its figure.

    Raises:
        UserError: checkpoints of different classes, or a mistake in the config or the data.
    """
    config = plain(cfg)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    on_first_process_only()
    keep_freed_memory()
    names = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    contents = [read_checkpoint(Path(name)) for name in names]
    detector = restore_all(contents, config["precision"])
    first = contents[0]
    kept = first["config"]["data"]
    data_config = config.get("data") or kept
    if "augmentation" in data_config:  # of classification: if not told, scaled as in training
        side_px = data_config.get("side_px") or kept.get("side_px")
        data_config = {**data_config, "side_px": side_px, "crops_per_image": 1}
        data_config.pop("augmentation")
    if "classes" in data_config:
        data_config = {**data_config, "classes": first["class_names"]}
    data = read_data(data_config, first["config"]["detector"], splits=("test",))
    if data.class_names != first["class_names"]:
        raise UserError(
            f"the classes of data={data.name} are not those that {names[0]} was trained on"
        )
    write_text(run_dir / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    views = config.get("views") or first["config"].get("views")
    loggers = make_loggers(config, run_dir)
    outcome = test(config, run_dir, detector, data, views, loggers)
    if is_first_process():
        config["data"] = data_config
        figures = outcome.report(run_dir, config, loggers)
        return figures.get("test/map", figures.get("test/top1_accuracy", 0.0))
    return 0.0


def restore_all(
    contents: list[dict[str, Any]], precision: Literal["float32", "bfloat16"] | None
) -> nn.Module:
    """The detector of a checkpoint, or the committee of several classifiers."""
    members = [restore_detector(content) for content in contents]
    for member in members:
        if precision:
            member.precision = precision  # type: ignore[assignment]
    if any(c["class_names"] != contents[0]["class_names"] for c in contents):
        raise UserError("ckpt= names classifiers of different classes")
    sides = sorted({c["config"]["data"].get("side_px", 0) for c in contents})
    if len(sides) > 1:
        raise UserError(f"ckpt= names classifiers trained on images of different side_px: {sides}")
    return as_one(members)


def read_data(
    config: dict[str, Any],
    detector: dict[str, Any],
    splits: tuple[str, ...] = ("train", "val", "test"),
) -> Data:
    """The data; for detection with its proposals."""
    data: Data = build(config)
    data.read(splits)
    if isinstance(data, DetectionData):
        data.find_proposals(build(detector["search"]))
    return data


def test(
    config: dict[str, Any],
    run_dir: Path,
    detector: nn.Module,
    data: Data,
    views: dict[str, Any] | None,
    loggers: Sequence[Logger],
) -> Outcome | ClassificationOutcome | MultiLabelOutcome:
    """Look at every test image, each once whatever the number of processes."""
    detector.requires_grad_(False)
    stage: DetectionStage | ClassificationTest
    if isinstance(data, DetectionData):
        stage = DetectionStage(detector, data, config["seed"])
    else:
        stage = ClassificationTest(detector, data, config["seed"], views=build(views))
    options = {"enable_checkpointing": False}
    trainer = make_trainer(
        config["trainer"], config["callbacks"], run_dir / "stages" / "test", loggers, options
    )
    start = time.monotonic()
    trainer.test(stage, verbose=False)
    seconds = {"test": time.monotonic() - start}
    if isinstance(stage, DetectionStage):
        return Outcome(stage.data, stage.curves, stage.tables, seconds)
    if stage.curves:
        return MultiLabelOutcome(stage.data, stage.curves, seconds)
    return ClassificationOutcome(
        stage.data, stage.figures, stage.table, stage.confusion, stage.detector, seconds
    )


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


def is_first_process() -> bool:
    """Whether this process writes and speaks for the run."""
    return int(os.environ.get("LOCAL_RANK", 0)) == 0


def on_first_process_only() -> None:
    """Other processes of the same run say warnings only."""
    if not is_first_process():
        logging.getLogger("detection").setLevel(logging.WARNING)
