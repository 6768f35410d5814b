"""A test's results as W&B media: AP table, precision-recall curves, images with boxes."""

from collections.abc import Sequence

import numpy as np
import wandb
from numpy.typing import NDArray
from pytorch_lightning.loggers import WandbLogger

from detection.data.detection_data import DetectionData
from detection.metrics.voc_ap import PRCurve
from detection.report.gallery import Picture

CURVE_POINTS = 100


def log_media(
    logger: WandbLogger,
    data: DetectionData,
    curves: Sequence[PRCurve],
    figures: dict[str, float],
    gallery: dict[str, list[Picture]],
) -> None:
    """Log tables and images."""
    names = data.class_names
    ap_rows = [
        [name, figures[f"test/ap/{name}"], c.num_truths]
        for name, c in zip(names, curves, strict=True)
    ]
    logger.log_table("test/ap_table", columns=["class", "ap", "objects"], data=ap_rows)
    points = [
        [name, float(recall), float(precision)]
        for name, curve in zip(names, curves, strict=True)
        for recall, precision in sampled(curve)
    ]
    table = wandb.Table(columns=["class", "recall", "precision"], data=points)
    plot = wandb.plot_table(
        "wandb/area-under-curve/v0",
        table,
        {"x": "recall", "y": "precision", "class": "class"},
        {"title": "Precision and recall"},
    )
    logger.experiment.log({"test/precision_recall": plot})
    for kind, pictures in gallery.items():
        logger.log_image(
            f"test/{kind}",
            [square(p.plain) for p in pictures],
            caption=[p.image_id for p in pictures],
            boxes=[boxes(p, names) for p in pictures],
        )


def square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture with a border below or to the right: W&B shows pictures of one size only."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    return np.pad(pixels, ((0, side - height), (0, side - width), (0, 0)))


def sampled(curve: PRCurve) -> list[tuple[float, float]]:
    """Recall and precision at a few places of a curve."""
    if len(curve.recall) == 0:
        return []
    count = min(CURVE_POINTS, len(curve.recall))
    chosen = np.linspace(0, len(curve.recall) - 1, count).astype(int)
    return list(zip(curve.recall[chosen].tolist(), curve.precision[chosen].tolist(), strict=True))


def boxes(picture: Picture, names: Sequence[str]) -> dict[str, object]:
    """Right, false and missed boxes as three layers that W&B can switch."""
    layers: dict[str, object] = {}
    for kind in ("right", "false", "missed"):
        chosen = [b for b in picture.boxes if b.kind == kind]
        layers[kind] = {
            "class_labels": dict(enumerate(names)),
            "box_data": [
                {
                    "position": dict(
                        zip(
                            ("minX", "minY", "maxX", "maxY"),
                            (int(v * picture.scale) for v in b.box),
                            strict=True,
                        )
                    ),
                    "domain": "pixel",
                    "class_id": b.label,
                    "box_caption": names[b.label],
                    "scores": {} if np.isnan(b.score) else {"score": b.score},
                }
                for b in chosen
            ],
        }
    return layers
