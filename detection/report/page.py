"""The report of a run: one HTML file that needs nothing beside it."""

import base64
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from detection.disk.files import replacing, write_text
from detection.report.plots import training_curves
from detection.report.rendering import templates
from detection.report.tables import (
    TIME_AN_IMAGE,
    Reference,
    percent,
    published_of,
    shown,
    stage_seconds,
)

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


@dataclass(frozen=True)
class Card:
    """A number at the top of the page.

    Attributes:
        text: of the number.
        label: below it.
        is_main: in the accent's colour.
    """

    text: str
    label: str
    is_main: bool = False


@dataclass(frozen=True)
class BarTable:
    """A table whose rows each have a bar.

    Attributes:
        title: above it.
        columns: their headings: the name's, then those of the cells.
        rows: (name, share in [0, 1] or NaN, cells), or with a link: (name, share, cells, link).
        note: a sentence above it.
        template: that draws it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""
    template: str = "bar_table.html"


@dataclass(frozen=True)
class Plots:
    """Plots as SVG text, by their subtitles ("" for none)."""

    title: str
    plots: Mapping[str, str]
    note: str = ""
    template: str = "plots.html"


@dataclass(frozen=True)
class SmallTable:
    """Rows of cells."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]
    template: str = "small_table.html"


@dataclass(frozen=True)
class Shown:
    """A picture of the gallery: (H, W, 3) uint8, and what it shows."""

    name: str
    pixels: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Groups of pictures; each is also written as a file.

    Attributes:
        title: above it.
        groups: pictures by the title of their group.
        colours: what each colour of a box means, as (name, r, g, b).
        note: beside the colours.
        template: that draws it.
    """

    title: str
    groups: Mapping[str, Sequence[Shown]]
    colours: Sequence[tuple[str, int, int, int]] = ()
    note: str = ""
    template: str = "gallery.html"


Section = BarTable | Plots | SmallTable | Gallery


@dataclass
class Page:
    """What a test shows beside what every run shows (curves, times, versions, config)."""

    subtitle: str
    cards: list[Card] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)


def write_page(
    run_dir: Path, page: Page, figures: Mapping[str, float], config: Mapping[str, Any]
) -> None:
    """Write `report/index.html` and its pictures.

    Args:
        run_dir: of the run.
        page: what the test came to.
        figures: of `metrics.json`.
        config: of the run.
    """
    stages = sorted(p for p in (run_dir / "stages").glob("*_*") if p.is_dir())
    times = {name.replace("_", " "): v for name, v in stage_seconds(figures).items()}
    an_image = {
        key.removeprefix(TIME_AN_IMAGE).removesuffix("_s"): shown(key, value)
        for key, value in figures.items()
        if key.startswith(TIME_AN_IMAGE)
    }
    spent = [Card(f"{sum(times.values()) / 60:.1f} min", "all stages and tests")] if times else []
    text = (
        templates(percent=percent, data_url=data_url)
        .get_template("page.html")
        .render(
            title=run_dir.name,
            subtitle=page.subtitle,
            cards=[*page.cards, *spent],
            sections=[*beside_paper(figures, config.get("reference") or {}), *page.sections],
            training={s.name: plot for s in stages if (plot := training_curves(s))},
            times=times,
            an_image=an_image,
            config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
            versions={"python": platform.python_version()} | {p: version_of(p) for p in PACKAGES},
        )
    )
    write_text(run_dir / "report" / "index.html", text)
    for section in page.sections:
        for title, pictures in getattr(section, "groups", {}).items():
            for n, picture in enumerate(pictures):
                write_picture(run_dir, f"{title.split()[0]}_{n}", picture.pixels)


def beside_paper(figures: Mapping[str, float], reference: Reference) -> list[Section]:
    """Published figures beside the measured ones, and other systems in the paper's tables."""
    published = published_of(figures)
    rows: list[Sequence[object]] = [
        (name.removeprefix("test/"), shown(name, figures.get(name)), shown(name, value))
        for name, value in published.items()
    ]
    rows += [
        (f"{system} ({place}): {name.removeprefix('test/')}", "", shown(name, value))
        for place, systems in reference.items()
        for system, some in systems.items()
        for name, value in some.items()
    ]
    columns = ("shares in %", "measured", "published")
    return [SmallTable("Beside the paper", columns, rows)] if rows else []


def version_of(package: str) -> str:
    """A package's version; a report does not fail for want of one."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed under this name"


def write_picture(run_dir: Path, name: str, pixels: NDArray[np.uint8]) -> None:
    """Write a picture of the report as a file of its own."""
    write_jpeg(run_dir / "report" / "pictures" / f"{name}.jpg", pixels)


def write_jpeg(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Write an (H, W, 3) RGB array as a JPEG file, whole."""
    with replacing(file) as temporary:
        temporary.write_bytes(jpeg(pixels))


def jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """An (H, W, 3) RGB array as a JPEG file."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
    return bytes(cv2.imencode(".jpg", pixels[:, :, ::-1], quality)[1])


def data_url(pixels: NDArray[np.uint8]) -> str:
    """An array as a picture inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(pixels)).decode()
