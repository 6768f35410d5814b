"""The options of `detection.predict`; the course, which needs torch, is imported late."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from detection.config.options import options_of, small_command
from detection.errors import UserError

USAGE = "python -m detection.predict ckpt=RUN images=FOLDER out=FOLDER [OPTION=VALUE ...]"
CHOICES = {"on_error": ("skip", "stop"), "precision": (None, "float32", "bfloat16")}


@dataclass
class PredictOptions:
    """The options of the command line.

    Attributes:
        ckpt: a run's folder, or its model.ckpt; [a,b]: several models as one.
        images: a folder (those below it count), a file, or a pattern such as 'photos/*.jpg'.
        out: folder of what is written: pictures, predictions.csv, detections.json, index.html.
        threshold: least score that counts; null: for each class that of its best F1 on validation.
        batch_size: images that a classifier looks at together; null: 16.
        num_workers: threads that decode images and look for proposals.
        device: cpu or cuda; null: a GPU where there is one.
        precision: float32 or bfloat16; null: as the model was made.
        svd_rank: ranks of fc6 and fc7, such as [256,64], which is faster; null: as they are.
        on_error: of a bad image: "skip", which lists it at the end, or "stop".
    """

    ckpt: Any = MISSING
    images: str = MISSING
    out: str = MISSING
    threshold: float | None = None
    batch_size: int | None = None
    num_workers: int = 2
    device: str | None = None
    precision: str | None = None
    svd_rank: list[int] | None = None
    on_error: str = "skip"


def read_options(words: Sequence[str]) -> PredictOptions:
    """The options of a command line.

    Raises:
        UserError: one is missing, unknown, or of a wrong value.
    """
    options = options_of(words, PredictOptions, USAGE, CHOICES)
    if options.num_workers < 1 or (options.batch_size or 1) < 1:
        raise UserError("batch_size= and num_workers= must be at least 1")
    return options


def main() -> None:
    """The command."""

    def course(words: Sequence[str]) -> None:
        options = read_options(words)
        from detection.runs.prediction import predict

        predict(options)

    small_command(USAGE, PredictOptions, course)
