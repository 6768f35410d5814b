"""What the test of a classifier found, and all that is written and shown of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor, nn

from detection.data.classification_data import ClassificationData
from detection.disk.files import write_json
from detection.disk.images import read_reduced
from detection.report.figures import run_figures
from detection.report.page import write_page, write_picture
from detection.report.plots import INK, STYLE, svg
from detection.report.result_files import write_guesses
from detection.report.tables import error_table

log = logging.getLogger(__name__)

SHOWN = 60  # classes in the report's table
PAIRS = 15  # of the most confused
PICTURES = 6  # of each kind
MAX_CELLS = 100  # classes along a side of the confusion plot
MOST_NAMES = 20  # of them that have room for their names


@dataclass
class Picture:
    """A test image of the report.

    Attributes:
        name: of its file.
        pixels: (H, W, 3) uint8.
        caption: its class, and what it was taken for.
    """

    name: str
    pixels: NDArray[np.uint8]
    caption: str


@dataclass
class ClassificationOutcome:
    """A test's results.

    Attributes:
        data: what was tested on.
        measured: `top1_error` and `top5_error`.
        table: see `TopKErrors.table`.
        confusion: (K, K) counts.
        network: whose first filters are shown.
        seconds: time of each stage and of the test.
    """

    data: ClassificationData
    measured: dict[str, float]
    table: dict[str, Tensor]
    confusion: Tensor
    network: nn.Module
    seconds: dict[str, float]

    def figures(self, published: dict[str, float]) -> dict[str, float]:
        """The flat content of `metrics.json`."""
        result = {f"test/{name}": value for name, value in self.measured.items()}
        result["test/top1_accuracy"] = 1 - self.measured["top1_error"]
        return result | run_figures(self.seconds, published)

    def report(
        self, run_dir: Path, config: dict[str, Any], loggers: Sequence[Logger]
    ) -> dict[str, float]:
        """Write figures and the report, print the table, tell the loggers; the figures."""
        figures = self.figures(config.get("published") or {})
        write_json(run_dir / "metrics.json", figures)
        index = self.data.indices["test"]
        images = [index.name(row) for row in self.table["rows"].tolist()]
        write_guesses(run_dir, self.table, self.confusion, images, self.data.class_names)
        log.info("test on %s\n%s", self.data.name, error_table(figures))
        gallery = self.gallery()
        for kind, pictures in gallery.items():
            for n, picture in enumerate(pictures):
                write_picture(run_dir, f"{kind.split()[0]}_{n}", picture.pixels)
        write_page(
            run_dir,
            "classification.html",
            figures,
            config,
            data=self.data,
            images=len(self.table["rows"]),
            classes=class_rows(self.confusion, self.data.class_names),
            shown=SHOWN,
            confused=confused_pairs(self.confusion, self.data.class_names),
            confusion=confusion_plot(self.confusion, self.data.class_names),
            gallery=gallery,
            filters=filter_plots(self.network),
        )
        for logger in loggers:
            logger.log_metrics(figures)
            if isinstance(logger, WandbLogger):
                log_media(logger, self, gallery)
        log.info("report: %s", run_dir / "report" / "index.html")
        return figures

    def gallery(self) -> dict[str, list[Picture]]:
        """The surest images, right and wrong."""
        sure = self.table["scores"][:, 0].argsort(descending=True)
        right = (self.table["guesses"][:, 0] == self.table["labels"])[sure]
        kinds = {"right and surest": sure[right], "wrong and surest": sure[~right]}
        return {k: [self.picture(int(n)) for n in rows[:PICTURES]] for k, rows in kinds.items()}

    def picture(self, place: int) -> Picture:
        """One test image, by its place in the table."""
        row = int(self.table["rows"][place])
        index, names = self.data.indices["test"], self.data.class_names
        guesses = [
            f"{names[guess]} {score:.2f}"
            for guess, score in zip(
                self.table["guesses"][place, :3].tolist(),
                self.table["scores"][place, :3].tolist(),
                strict=True,
            )
        ]
        truth = names[int(self.table["labels"][place])]
        return Picture(
            index.name(row), read_reduced(index.path(row), 240), f"{truth}: {', '.join(guesses)}"
        )


def class_rows(confusion: Tensor, names: list[str]) -> list[dict[str, Any]]:
    """A row for each class that was tested, highest error first."""
    images = confusion.sum(dim=1).tolist()
    right = confusion.diagonal().tolist()
    rows = [
        {"name": name, "images": n, "error": 1 - r / n}
        for name, n, r in zip(names, images, right, strict=True)
        if n
    ]
    return sorted(rows, key=lambda row: -row["error"])


def confused_pairs(confusion: Tensor, names: list[str]) -> list[dict[str, Any]]:
    """The pairs of classes that are confused most often."""
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    best = wrong.topk(min(PAIRS, len(wrong)))
    return [
        {"name": names[i // len(names)], "taken_for": names[i % len(names)], "images": n}
        for n, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if n
    ]


def confusion_plot(confusion: Tensor, names: list[str]) -> str:
    """Shares of each class's images by guessed class; of many classes those most often wrong."""
    wrong = confusion.sum(dim=1) - confusion.diagonal()
    chosen = wrong.argsort(descending=True, stable=True)[:MAX_CELLS].sort().values
    counts = confusion[chosen][:, chosen].double()
    shares = counts / confusion[chosen].sum(dim=1, keepdim=True).clamp(min=1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 4.2))
        ax = figure.subplots()
        ax.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
        ax.set(xlabel="guessed class", ylabel="class", xticks=[], yticks=[])
        if len(chosen) <= MOST_NAMES:
            shown = [names[label] for label in chosen.tolist()]
            ax.set_xticks(range(len(shown)), shown, rotation=90)
            ax.set_yticks(range(len(shown)), shown)
        return svg(figure)


def filter_plots(network: nn.Module) -> dict[str, str]:
    """First- and second-layer filters (OverFeat, figure 2)."""
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)][:2]
    plots = {}
    for name, layer in zip(("conv1", "conv2"), convolutions, strict=False):
        weight = layer.weight.detach().float().cpu()  # (out, in, k, k)
        if min(weight.shape[2:]) < 3:
            continue
        if weight.shape[1] == 3:
            plots[name] = tiles(weight.permute(0, 2, 3, 1).numpy())
        else:
            strongest = weight.flatten(2).norm(dim=2).argmax(dim=1)
            plots[name] = tiles(weight[range(len(weight)), strongest].numpy())
    return plots


def tiles(filters: NDArray[np.float32], most: int = 128) -> str:
    """Small pictures of filters (N, k, k) or (N, k, k, 3), each from black to white."""
    filters = filters[:most]
    columns = 16
    rows = -(-len(filters) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(columns * 0.5, rows * 0.5))
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat:
            ax.set_axis_off()
        for ax, tile in zip(axes.flat, filters, strict=False):
            low, high = tile.min(), tile.max()
            ax.imshow((tile - low) / max(high - low, 1e-9), cmap="gray", interpolation="nearest")
        figure.patch.set_edgecolor(INK)
        return svg(figure)


def log_media(
    logger: WandbLogger, outcome: ClassificationOutcome, gallery: dict[str, list[Picture]]
) -> None:
    """Log tables and images to W&B."""
    names = outcome.data.class_names
    rows = [[r["name"], r["error"], r["images"]] for r in class_rows(outcome.confusion, names)]
    logger.log_table("test/class_errors", columns=["class", "top-1 error", "images"], data=rows)
    pairs = [list(row.values()) for row in confused_pairs(outcome.confusion, names)]
    logger.log_table("test/confused", columns=["class", "taken for", "images"], data=pairs)
    for kind, pictures in gallery.items():
        if pictures:
            logger.log_image(
                f"test/{kind.split()[0]}",
                [p.pixels for p in pictures],
                caption=[p.caption for p in pictures],
            )
