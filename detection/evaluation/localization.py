"""Localisation: ILSVRC's error, what it comes from, pictures with the true and guessed boxes."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from detection.data.module import DataModule
from detection.disk.images import image_size, read_image
from detection.evaluation.evaluator import Result
from detection.metrics.bootstrap import FEW_IMAGES, interval, mean_shares, resampled
from detection.metrics.localization import MIN_IOU, LocalizationError
from detection.report.drawing import Outline, draw_outlines, fitted
from detection.report.media import Media, MediaImages, MediaTable
from detection.report.page import BarTable, Card, Gallery, Page, Shown, SmallTable
from detection.report.result_files import LocalizationPredictions
from detection.report.tables import Table, interval_text, percent

PICTURES = 6  # of each kind
PICTURE_PX = 420  # longer side of a picture
SHOWN = 60  # classes in the report's table
COLOURS = {"true": (245, 166, 35), "right": (34, 160, 84), "wrong": (222, 57, 57)}
SIZES = (0.1, 0.25, 0.5, 0.75)  # shares of an image that its largest object covers
COUNTS = {1: "1 object", 2: "2", 3: "3", 4: "4 or more"}
NOTE = (
    "The guess is the first; where it is of another class, the box for the true class is drawn too "
    "(dashed)."
)


class LocalizationEvaluator:
    """The error of the first `top_k` guesses, of the first, and on the true class.

    Args:
        top_k: guesses an image.
    """

    def __init__(self, top_k: int = 5) -> None:
        self.top_k = top_k
        self.headline = f"loc_accuracy_top{top_k}"

    def metric(self, num_classes: int) -> LocalizationError:
        """Keeps the guesses for every image."""
        return LocalizationError(min(self.top_k, num_classes))

    def figures(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """`loc_error_top5`, `_top1`, `_true_class`, `top5_error`, `top1_error` of classes."""
        assert isinstance(metric, LocalizationError)
        return self._figures(metric.table(), len(class_names))

    def _figures(self, table: Mapping[str, Tensor], num_classes: int) -> dict[str, float]:
        errors = {name: float(v) for name, v in LocalizationError.summary(table).items()}
        figures = {
            f"loc_error_top{self.top_k}": errors["error"],
            "loc_error_top1": errors["top1"],
            "loc_error_true_class": errors["true_class"],
            f"top{self.top_k}_error": errors["classification"],
            "top1_error": errors["classification_top1"],
            self.headline: 1 - errors["error"],
        }
        if num_classes <= self.top_k:
            del figures[f"top{self.top_k}_error"]  # it is 0
        return figures

    def thresholds(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """None: the best guesses are shown, whatever their scores."""
        return {}

    def result(self, metric: Metric, data: DataModule) -> Result:
        """See `Evaluator.result`."""
        assert isinstance(metric, LocalizationError)
        table, split, names = metric.table(), data.split("test"), data.class_names
        figures = self._figures(table, len(names))
        counted = table["num_boxes"] > 0
        if len(split) <= FEW_IMAGES and counted.any():
            figures |= self._intervals(table, counted)
        images = [split.image_id(i) for i in table["image_ids"].tolist()]
        gallery = gallery_of(table, data)
        page = Page(
            f"{data.name}: {len(images)} test images, {int(counted.sum())} with boxes, "
            f"{len(names)} classes",
            self._cards(figures),
            [
                SmallTable("What the errors come from",
                           ("guesses", "right, %", "wrong class, %", "wrong box, %"),
                           [(name, *map(percent, shares_of(table, k)))
                            for name, k in (("first", 1), (f"first {self.top_k}", self.top_k))]),
                SmallTable("Error on the true class by size of the largest object",
                           ("share of the image", "error, %", "images"), size_rows(table, data)),
                SmallTable("Error on the true class by number of objects",
                           ("objects of the class", "error, %", "images"), count_rows(table)),
                BarTable("Error of each class", ("class", "first guess, %", "images"),
                         [(name, e, (percent(e), n)) for name, e, n in class_rows(table, names)]),
                Gallery("Test images", gallery, [(k, *c) for k, c in COLOURS.items()], NOTE),
            ],
        )  # fmt: skip
        media: list[Media] = [
            MediaTable(
                "class_errors", ("class", "top-1 error", "images"), class_rows(table, names)
            ),
            *(
                MediaImages(kind.split()[0], [p.pixels for p in some], [p.caption for p in some])
                for kind, some in gallery.items()
            ),
        ]
        predictions = LocalizationPredictions(table, images, list(names))
        return Result(figures, self._table(figures), predictions, page, media)

    def _cards(self, figures: dict[str, float]) -> list[Card]:
        kinds = {
            f"loc_error_top{self.top_k}": f"localisation error, {self.top_k} guesses",
            "loc_error_top1": "localisation error, first guess",
            "loc_error_true_class": "localisation error on the true class",
            f"top{self.top_k}_error": f"top-{self.top_k} error of classes",
            "top1_error": "top-1 error of classes",
        }
        return [
            Card(f"{percent(figures[name])} %", text + interval_text(figures, name), is_main=n == 0)
            for n, (name, text) in enumerate(kinds.items())
            if name in figures
        ]

    def _table(self, figures: dict[str, float]) -> Table:
        rows = {
            f"localisation, top {self.top_k}": f"loc_error_top{self.top_k}",
            "localisation, top 1": "loc_error_top1",
            "localisation, true class": "loc_error_true_class",
            f"classification, top {self.top_k}": f"top{self.top_k}_error",
            "classification, top 1": "top1_error",
        }
        return Table("error, %", [(a, f"test/{b}") for a, b in rows.items() if b in figures])

    def _intervals(self, table: Mapping[str, Tensor], counted: Tensor) -> dict[str, float]:
        """Ends of the 95 % intervals."""
        right = is_right(table)[counted]
        of_true = table["ious"][counted, -1] >= MIN_IOU
        counts = resampled(len(right))
        errors = {
            f"loc_error_top{self.top_k}": right.any(dim=1),
            "loc_error_top1": right[:, 0],
            "loc_error_true_class": of_true,
        }
        ends: dict[str, float] = {}
        for name, values in errors.items():
            ends |= interval(name, 1 - mean_shares(values, counts))
        return ends


def is_right(table: Mapping[str, Tensor]) -> Tensor:
    """(I, k) whether each guess has the class and a box that fits."""
    is_class = table["guesses"] == table["labels"][:, None]
    return is_class & (table["ious"][:, :-1] >= MIN_IOU)


def shares_of(table: Mapping[str, Tensor], top_k: int) -> tuple[float, float, float]:
    """Shares of the images with boxes: right, of a wrong class, of a wrong box; in all 1."""
    counted = table["num_boxes"] > 0
    right = is_right(table)[counted, :top_k].any(dim=1)
    named = (table["guesses"] == table["labels"][:, None])[counted, :top_k].any(dim=1)
    shares = (right, ~named, named & ~right)
    first, second, third = (float(share.double().mean()) for share in shares)
    return first, second, third


def size_rows(table: Mapping[str, Tensor], data: DataModule) -> list[tuple[str, str, int]]:
    """Error on the true class by the share of the image that the largest object covers."""
    split, shares = data.split("test"), []
    for number in table["image_ids"].tolist():
        boxes = split.target(number)["boxes"]
        width, height = image_size(split.path(number)) if len(boxes) else (1, 1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1)
        shares.append(float(areas.max()) / (width * height) if len(boxes) else 0.0)
    bins = np.digitize(shares, SIZES)
    names = [f"under {SIZES[0]:.0%}"]
    names += [f"{a:.0%} to {b:.0%}" for a, b in pairwise(SIZES)]
    names.append(f"over {SIZES[-1]:.0%}")
    return error_rows(table, torch.from_numpy(bins), dict(enumerate(names)))


def count_rows(table: Mapping[str, Tensor]) -> list[tuple[str, str, int]]:
    """Error on the true class by the number of its objects."""
    return error_rows(table, table["num_boxes"].clamp(max=max(COUNTS)), COUNTS)


def error_rows(
    table: Mapping[str, Tensor], group: Tensor, names: Mapping[int, str]
) -> list[tuple[str, str, int]]:
    """Name, error on the true class in percent, and images of each group that has some."""
    wrong, counted = table["ious"][:, -1] < MIN_IOU, table["num_boxes"] > 0
    rows = []
    for number, name in names.items():
        mine = counted & (group == number)
        if mine.any():
            rows.append((name, percent(float(wrong[mine].double().mean())), int(mine.sum())))
    return rows


def class_rows(table: Mapping[str, Tensor], names: Sequence[str]) -> list[tuple[str, float, int]]:
    """Name, error of the first guess and images of each class, highest error first."""
    counted = table["num_boxes"] > 0
    labels, wrong = table["labels"][counted], ~is_right(table)[counted, 0]
    images = torch.bincount(labels, minlength=len(names))
    errors = torch.bincount(labels, wrong.double(), minlength=len(names))
    pairs = zip(names, errors.tolist(), images.tolist(), strict=True)
    rows = [(name, e / n, n) for name, e, n in pairs if n]
    return sorted(rows, key=lambda row: -row[1])[:SHOWN]


def gallery_of(table: Mapping[str, Tensor], data: DataModule) -> dict[str, list[Shown]]:
    """The best, the worst and some random images."""
    right, first = is_right(table)[:, 0], table["ious"][:, 0]
    counted = torch.nonzero(table["num_boxes"] > 0)[:, 0]
    quality = (first + right.double())[counted]  # right ones first, by how well the box fits
    best = counted[quality.argsort(descending=True, stable=True)]
    shuffled = torch.randperm(len(counted), generator=torch.Generator().manual_seed(0))
    groups = {"best": best, "worst": best.flip(0), "random": counted[shuffled]}
    return {
        kind: [picture(table, int(row), data) for row in rows[:PICTURES]]
        for kind, rows in groups.items()
    }


def picture(table: Mapping[str, Tensor], row: int, data: DataModule) -> Shown:
    """A test image with its true boxes and the first guess's."""
    number, split, names = int(table["image_ids"][row]), data.split("test"), data.class_names
    label, guess = int(table["labels"][row]), int(table["guesses"][row, 0])
    right = bool(is_right(table)[row, 0])
    iou, score = float(table["ious"][row, 0]), float(table["scores"][row, 0])
    outlines = [
        Outline(tuple(box), COLOURS["true"], names[label])
        for box in split.target(number)["boxes"].tolist()
    ]
    colour = COLOURS["right" if right else "wrong"]
    if guess != label and float(table["ious"][row, -1]) >= 0:
        of_true = table["true_boxes"][row].tolist()
        outlines.append(Outline(tuple(of_true), COLOURS["wrong"], "", dashed=True))
    text = f"{names[guess]} {score:.2f}"
    outlines.append(Outline(tuple(table["boxes"][row, 0].tolist()), colour, text))
    pixels = read_image(split.path(number))
    shown = fitted(pixels, PICTURE_PX)
    drawn = draw_outlines(shown, outlines, shown.shape[1] / pixels.shape[1])
    what = f"IoU {iou:.2f}" if guess == label else f"taken for {names[guess]}"
    return Shown(split.image_id(number), drawn, f"{names[label]}: {what}")
