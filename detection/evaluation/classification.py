"""Classification: top-1 and top-5 error, confusions, the surest right and wrong guesses."""

from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric

from detection.data.module import DataModule
from detection.disk.images import read_reduced
from detection.evaluation.evaluator import Result
from detection.metrics.bootstrap import FEW_IMAGES, interval, mean_shares, resampled
from detection.metrics.top_k import TOP, TopKErrors
from detection.report.media import Media, MediaImages, MediaTable
from detection.report.page import BarTable, Card, Gallery, Page, Plots, Shown, SmallTable
from detection.report.plots import STYLE, svg
from detection.report.result_files import GuessPredictions
from detection.report.tables import Table, interval_text, percent

SHOWN = 60  # classes in the report's table
PAIRS = 15  # of the most confused
PICTURES = 6  # of each kind
PICTURE_PX = 240  # shorter side of a picture
MAX_CELLS = 100  # classes along a side of the confusion plot
MOST_NAMES = 20  # of them that have room for their names

MOST_FIGURES = 200  # classes that have figures of their own


class ClassificationEvaluator:
    """Errors of the best guess and of the five best, as ILSVRC counts them."""

    headline = "top1_accuracy"

    def metric(self, num_classes: int) -> TopKErrors:
        """Keeps the best guesses for every image."""
        return TopKErrors(num_classes)

    def figures(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """`top1_error`, `top1_accuracy`, and where more than five classes are, `top5_error`."""
        assert isinstance(metric, TopKErrors)
        # not `compute`, which gathers: the caller has gathered
        errors = {name: float(value) for name, value in metric.summary(metric.table()).items()}
        if len(class_names) <= TOP:
            del errors["top5_error"]  # it is 0
        return errors | {"top1_accuracy": 1 - errors["top1_error"]}

    def thresholds(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """None: the best guesses are shown, whatever their scores."""
        return {}

    def result(self, metric: Metric, data: DataModule) -> Result:
        """See `Evaluator.result`."""
        assert isinstance(metric, TopKErrors)
        table, split, names = metric.table(), data.split("test"), data.class_names
        confusion = metric.confusion(table)
        errors = self.figures(metric, names)
        if len(split) <= FEW_IMAGES:
            errors |= intervals(table)
        figures = errors | class_figures(confusion, names)
        images = [split.image_id(i) for i in table["image_ids"].tolist()]
        rows, pairs = class_rows(confusion, names), confused_pairs(confusion, names)
        gallery = gallery_of(table, data)
        note = "" if len(rows) <= SHOWN else (
            f"The {SHOWN} classes with the highest error, of {len(rows)}.")  # fmt: skip
        page = Page(
            f"{data.name}: {len(images)} test images, {len(names)} classes",
            [
                Card(
                    f"{percent(errors[f'top{k}_error'])} %",
                    f"top-{k} error{interval_text(errors, f'top{k}_error')}",
                    is_main=True,
                )
                for k in (1, TOP)
                if f"top{k}_error" in errors
            ],
            [
                BarTable("Error of each class", ("class", "top-1 error, %", "images"),
                         [(name, e, (percent(e), n)) for name, e, n in rows[:SHOWN]], note),
                SmallTable("Most confused", ("class", "taken for", "images"), pairs),
                Plots("Confusion", {"": confusion_plot(confusion, names)}),
                Gallery("Test images", gallery),
            ],
        )  # fmt: skip
        media: list[Media] = [
            MediaTable("class_errors", ("class", "top-1 error", "images"), rows),
            MediaTable("confused", ("class", "taken for", "images"), pairs),
            *(
                MediaImages(kind.split()[0], [p.pixels for p in some], [p.caption for p in some])
                for kind, some in gallery.items()
            ),
        ]
        predictions = GuessPredictions(table, confusion, images, list(names))
        return Result(figures, error_table(errors), predictions, page, media)


def error_table(errors: dict[str, float]) -> Table:
    """What a person sees at once."""
    rows = {"top1_error": "top-1 error", "top5_error": "top-5 error", "top1_accuracy": "accuracy"}
    listed = [(text, f"test/{name}") for name, text in rows.items() if name in errors]
    return Table("test images, %", [*listed])


def intervals(table: dict[str, Tensor]) -> dict[str, float]:
    """Ends of the 95 % intervals of the top-1 error and accuracy."""
    is_right = table["guesses"][:, 0] == table["labels"]
    shares = mean_shares(is_right, resampled(len(is_right)))
    return interval("top1_error", 1 - shares) | interval("top1_accuracy", shares)


def class_figures(confusion: Tensor, names: Sequence[str]) -> dict[str, float]:
    """`recall/<class>` and `support/<class>`, its number of test images, of each that has some.

    Nothing where there are very many classes.
    """
    if len(names) > MOST_FIGURES:
        return {}
    rows = class_rows(confusion, names)
    recall = {f"recall/{name}": 1 - error for name, error, _ in rows}
    return recall | {f"support/{name}": float(images) for name, _, images in rows}


def gallery_of(table: dict[str, Tensor], data: DataModule) -> dict[str, list[Shown]]:
    """The surest images, right and wrong."""
    sure = table["scores"][:, 0].argsort(descending=True)
    right = (table["guesses"][:, 0] == table["labels"])[sure]
    kinds = {"right and surest": sure[right], "wrong and surest": sure[~right]}
    return {
        kind: [picture(table, int(row), data) for row in rows[:PICTURES]]
        for kind, rows in kinds.items()
    }


def picture(table: dict[str, Tensor], row: int, data: DataModule) -> Shown:
    """One test image, by its row in the table: its class, and what it was taken for."""
    number, split, names = int(table["image_ids"][row]), data.split("test"), data.class_names
    guesses = [
        f"{names[guess]} {score:.2f}"
        for guess, score in zip(
            table["guesses"][row, :3].tolist(), table["scores"][row, :3].tolist(), strict=True
        )
    ]
    pixels = read_reduced(split.path(number), PICTURE_PX)
    label = names[int(table["labels"][row])]
    return Shown(split.image_id(number), pixels, f"{label}: {', '.join(guesses)}")


def class_rows(confusion: Tensor, names: Sequence[str]) -> list[tuple[str, float, int]]:
    """Name, error and number of images of each class that was tested, highest error first."""
    images = confusion.sum(dim=1).tolist()
    right = confusion.diagonal().tolist()
    rows = [(name, 1 - r / n, n) for name, n, r in zip(names, images, right, strict=True) if n]
    return sorted(rows, key=lambda row: -row[1])


def confused_pairs(confusion: Tensor, names: Sequence[str]) -> list[tuple[str, str, int]]:
    """The pairs of classes that are confused most often: class, taken for, images."""
    wrong = confusion.clone().fill_diagonal_(0).flatten()
    best = wrong.topk(min(PAIRS, len(wrong)))
    return [
        (names[i // len(names)], names[i % len(names)], n)
        for n, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        if n
    ]


def confusion_plot(confusion: Tensor, names: Sequence[str]) -> str:
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
