"""Plots of the report, as SVG text to stand inside a page."""

import csv
import warnings
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import nn

from detection.metrics.voc_ap import PRCurve

INK = "#33415c"
LINES = ("#2463eb", "#e0672f", "#1a9c6b", "#8b46d9")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
}
MAX_PLOTS = 40  # of classes
MAX_POINTS = 400  # of a line; a curve of 100,000 detections looks the same


def svg(figure: Figure) -> str:
    """A figure as an `<svg>` element."""
    text = StringIO()
    with warnings.catch_warnings():  # letters that our font lacks are the browser's to draw
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.tight_layout()
        figure.savefig(text, format="svg", bbox_inches="tight", transparent=True)
    content = text.getvalue()
    return content[content.index("<svg") :]


def precision_recall(curves: Sequence[PRCurve], names: Sequence[str], aps: Sequence[float]) -> str:
    """One small plot a class, all with the same axes; of many classes the best and the worst."""
    chosen = best_and_worst(aps)
    curves, names = [curves[i] for i in chosen], [names[i] for i in chosen]
    aps = [aps[i] for i in chosen]
    with mpl.rc_context(STYLE):
        columns = min(5, len(names))
        rows = -(-len(names) // columns)
        figure = Figure(figsize=(2.1 * columns, 1.9 * rows))
        axes = figure.subplots(rows, columns, squeeze=False)
        for ax in axes.flat[len(names) :]:
            ax.set_visible(False)
        for n, (ax, curve, name, ap) in enumerate(zip(axes.flat, curves, names, aps, strict=False)):
            recall, precision = thinned(curve)
            ax.plot(recall, precision, color=LINES[0], lw=1.5)
            ax.fill_between(recall, precision, color=LINES[0], alpha=0.12, lw=0)
            ax.set(xlim=(0, 1), ylim=(0, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
            ax.tick_params(labelleft=n % columns == 0, labelbottom=n + columns >= len(names))
            label = f"{100 * ap:.1f}" if ap == ap else "no object"
            ax.set_title(f"{shortened(name, 30)}  {label}", fontsize=8, parse_math=False)
        figure.supxlabel("recall", fontsize=8)
        figure.supylabel("precision", fontsize=8)
        return svg(figure)


def shortened(text: str, most: int) -> str:
    """A text without its middle where it is too long.

    >>> shortened("abcdefghij", 5)
    'ab…ij'
    """
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def best_and_worst(aps: Sequence[float]) -> list[int]:
    """Indices of the classes to plot, in their order: all, or those with the extreme APs.

    >>> best_and_worst([0.5, 0.2])
    [0, 1]
    """
    order = sorted((i for i, ap in enumerate(aps) if ap == ap), key=lambda i: aps[i])
    if len(aps) <= MAX_PLOTS:
        return list(range(len(aps)))
    half = MAX_PLOTS // 2
    return sorted({*order[:half], *order[-half:]}) or [0]


def thinned(curve: PRCurve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision of a curve, at most `MAX_POINTS` of each."""
    recall, precision = curve.recall.numpy(), curve.precision.numpy()
    if len(recall) <= MAX_POINTS:
        return recall, precision
    chosen = np.linspace(0, len(recall) - 1, MAX_POINTS).astype(int)
    return recall[chosen], precision[chosen]


def training_curves(stage_folder: Path) -> str | None:
    """Loss and accuracy over the steps of a stage; None where it has nothing to plot."""
    series = read_curves(stage_folder)
    losses = {k: v for k, v in series.items() if k.endswith("loss")}
    if not losses:
        return None
    shares = {k: v for k, v in series.items() if k.endswith("accuracy")}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.2))
        axes = figure.subplots(1, 2)
        for ax, lines, label in zip(axes, (losses, shares), ("loss", "accuracy"), strict=True):
            for (key, points), colour in zip(sorted(lines.items()), LINES, strict=False):
                steps, values = np.array(sorted(points.items())).T
                name = "val" if "val_" in key else "train"
                ax.plot(steps, values, color=colour, lw=1.4, label=name)
            ax.set(xlabel="step", ylabel=label)
            if lines:
                ax.legend(frameon=False)
        return svg(figure)


def read_curves(stage_folder: Path) -> dict[str, dict[int, float]]:
    """Name → step → value, from the CSV files of all starts; a later start replaces a step."""
    series: dict[str, dict[int, float]] = {}
    for file in sorted((stage_folder / "curves").glob("part_*/metrics.csv")):
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                step = int(row.pop("step"))
                for key, value in row.items():
                    if value and key != "epoch":
                        series.setdefault(key, {})[step] = float(value)
    return series


def filter_plots(network: nn.Module) -> dict[str, str]:
    """First- and second-layer filters (OverFeat, figure 2); none of 1×1 convolutions."""
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
