"""The report of a run: one HTML file that needs nothing beside it."""

import base64
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from jinja2 import Environment, PackageLoader, select_autoescape
from numpy.typing import NDArray
from torch import Tensor

from detection.data.detection_data import DetectionData
from detection.disk.files import replacing, write_text
from detection.metrics.voc_ap import PRCurve
from detection.report.gallery import COLOURS, Picture, make_gallery
from detection.report.plots import precision_recall, training_curves
from detection.report.tables import percent

PICTURES = 6  # of each kind in the gallery
PACKAGES = (
    "detection",
    "torch",
    "torchvision",
    "pytorch-lightning",
    "hydra-core",
    "numpy",
    "opencv-contrib-python-headless",
    "scikit-learn",
)


def write_report(
    run_dir: Path,
    data: DetectionData,
    curves: Sequence[PRCurve],
    tables: tuple[Tensor, Tensor],
    figures: dict[str, float],
    config: dict[str, Any],
) -> dict[str, list[Picture]]:
    """Write the `report/index.html` of a detector and its pictures as files; the pictures."""
    names, judge = data.class_names, data.metric(len(data.class_names)).judge
    gallery = make_gallery(data.datasets["test"], tables, curves, judge, names, PICTURES)
    for kind, pictures in gallery.items():
        for picture in pictures:
            write_picture(run_dir, f"{kind}_{picture.image_id}", picture.pixels)
    aps = [figures[f"test/ap/{name}"] for name in names]
    write_page(
        run_dir,
        "detection.html",
        figures,
        config,
        data=data,
        classes=class_rows(data, curves, aps),
        curves=precision_recall(curves, names, aps),
        gallery=gallery,
        colours={kind: "rgb({}, {}, {})".format(*c) for kind, c in COLOURS.items()},
    )
    return gallery


def write_page(
    run_dir: Path, template: str, figures: dict[str, float], config: dict[str, Any], **results: Any
) -> None:
    """Write `report/index.html`: results, and what every run has (curves, times, versions, config).

    Args:
        run_dir: of the run.
        template: of the results.
        figures: of `metrics.json`.
        config: of the run.
        results: what the template shows beside that.
    """
    stages = sorted(p for p in (run_dir / "stages").glob("*_*") if p.is_dir())
    environment = Environment(
        loader=PackageLoader("detection.report", "templates"), autoescape=select_autoescape()
    )
    environment.filters |= {"percent": percent, "data_url": data_url}
    page = environment.get_template(template).render(
        title=run_dir.name,
        figures=figures,
        published={
            k.removeprefix("published/"): v
            for k, v in figures.items()
            if k.startswith("published/")
        },
        training={s.name: plot for s in stages if (plot := training_curves(s))},
        times={k[5:-2].replace("_", " "): v for k, v in figures.items() if k.startswith("time/")},
        config=yaml.safe_dump(config, sort_keys=False),
        versions={"python": platform.python_version()} | {p: version(p) for p in PACKAGES},
        **results,
    )
    write_text(run_dir / "report" / "index.html", page)


def write_picture(run_dir: Path, name: str, pixels: NDArray[np.uint8]) -> None:
    """Write a picture of the report as a file of its own."""
    with replacing(run_dir / "report" / "pictures" / f"{name}.jpg") as temporary:
        temporary.write_bytes(jpeg(pixels))


def class_rows(
    data: DetectionData, curves: Sequence[PRCurve], aps: Sequence[float]
) -> list[dict[str, Any]]:
    """A row of the table for each class, best first."""
    rows = [
        {"name": name, "ap": ap, "truths": curve.num_truths, "found": len(curve.scores)}
        for name, curve, ap in zip(data.class_names, curves, aps, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["ap"] if row["ap"] == row["ap"] else 1.0)


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """An (H, W, 3) RGB array as a JPEG file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1], quality)[1])


def data_url(pixels: NDArray[np.uint8]) -> str:
    """An array as a picture inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(pixels)).decode()
