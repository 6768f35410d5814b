"""A finished model on validation or test images, each image once whatever the processes."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import Logger

from detection.data.module import DataModule
from detection.evaluation.evaluator import Evaluator, Result
from detection.runs.trainer import make_trainer
from detection.training.model import Model
from detection.training.stage import Stage

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """What a pass over a split came to.

    Attributes:
        figures: of the evaluator; none where the split has no images.
        seconds: that it took.
        result: of a test, in the first process.
        thresholds: of each class, the score from which on a prediction is worth showing.
        by_part: seconds an image of each part of prediction, of a test.
    """

    figures: dict[str, float]
    seconds: float = 0.0
    result: Result | None = None
    thresholds: dict[str, float] = field(default_factory=dict)
    by_part: dict[str, float] = field(default_factory=dict)


def measure(
    config: dict[str, Any],
    run_dir: Path,
    model: Model,
    data: DataModule,
    evaluator: Evaluator,
    loggers: Sequence[Logger],
    split: Literal["val", "test"],
) -> Measured:
    """Predict for every image of a split, and let the evaluator measure."""
    if split == "val" and not data.has_val:
        return Measured({})
    stage = Stage(model, data, evaluator, config["seed"])
    options = {"enable_checkpointing": False}
    folder = run_dir / "stages" / split
    trainer = make_trainer(config["trainer"], config["callbacks"], folder, loggers, options)
    start = time.monotonic()
    run = trainer.test if split == "test" else trainer.validate
    run(stage, verbose=False)
    seconds = time.monotonic() - start
    return Measured(stage.figures, seconds, stage.result, stage.thresholds, stage.seconds)
