"""A test's results as W&B media: tables, curves, images with boxes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger


@dataclass(frozen=True)
class MediaTable:
    """Rows of cells."""

    name: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class MediaCurves:
    """A curve for each class: rows of class, recall and precision."""

    name: str
    rows: Sequence[tuple[str, float, float]]


@dataclass(frozen=True)
class MediaImages:
    """Pictures with captions, and perhaps layers of boxes that W&B can switch."""

    name: str
    pixels: Sequence[NDArray[np.uint8]]
    captions: Sequence[str]
    boxes: Sequence[Mapping[str, object]] = field(default_factory=list)


Media = MediaTable | MediaCurves | MediaImages


def log_media(logger: WandbLogger, media: Sequence[Media], prefix: str) -> None:
    """Log tables, curves and images under `<prefix>/<name>`."""
    import wandb

    for item in media:
        name = f"{prefix}/{item.name}"
        match item:
            case MediaTable():
                logger.log_table(
                    name, columns=list(item.columns), data=[list(r) for r in item.rows]
                )
            case MediaCurves():
                points = [list(row) for row in item.rows]
                table = wandb.Table(columns=["class", "recall", "precision"], data=points)
                plot = wandb.plot_table(
                    "wandb/area-under-curve/v0",
                    table,
                    {"x": "recall", "y": "precision", "class": "class"},
                    {"title": "Precision and recall"},
                )
                logger.experiment.log({name: plot})
            case MediaImages() if item.pixels:
                boxes: dict[str, Any] = {"boxes": list(item.boxes)} if item.boxes else {}
                pixels = [square(p) for p in item.pixels]
                logger.log_image(name, pixels, caption=list(item.captions), **boxes)


def square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with a border below or to the right: W&B shows pictures of one size only."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    return np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)))
