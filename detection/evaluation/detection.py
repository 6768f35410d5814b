"""Detection: average precision, proposals' recall, right, false and missed boxes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torchmetrics import Metric

from detection.data.module import DataModule
from detection.evaluation.evaluator import Result
from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.bootstrap import FEW_IMAGES, interval, resampled, resampled_maps
from detection.metrics.voc_ap import Interpolation, PRCurve
from detection.metrics.voc_ap import curves_of as curves_of_classes
from detection.proposals.recall import ProposalRecall
from detection.report.drawing import numbered
from detection.report.gallery import COLOURS, Picture, best_f1_score, make_gallery
from detection.report.media import Media, MediaCurves, MediaImages, MediaTable
from detection.report.page import BarTable, Card, Gallery, Page, Plots, Shown
from detection.report.plots import precision_recall
from detection.report.result_files import DetectionPredictions
from detection.report.tables import Table, interval_text, percent

PICTURES = 6  # of each kind in the gallery
ENOUGH_OBJECTS = 20  # of a class, for a threshold of its own
CURVE_POINTS = 100  # of a curve for W&B
NAMES: dict[Interpolation, str] = {"area": "area", "11point": "11 points"}
BOTH: tuple[Interpolation, ...] = ("area", "11point")
NOTE = (
    "Detections are shown from the score on at which their class's F1 is best; hits on difficult "
    "objects are left out. In the last row they are those of a precision above 0.5 (R-CNN, figures "
    "8 to 11), each with the precision of its class down to its score."
)


class DetectionEvaluator:
    """mAP by the rules of a challenge.

    Args:
        interpolation: of the headline AP: "11point" (VOC 2007) or "area" (since 2010).
        metric: makes the metric from the number of classes; VOC's by default.
    """

    headline = "map"

    def __init__(
        self,
        interpolation: Interpolation = "area",
        metric: Callable[[int], VOCMeanAveragePrecision] = VOCMeanAveragePrecision,
    ) -> None:
        self.interpolation: Interpolation = interpolation
        self._make = metric

    def metric(self, num_classes: int) -> VOCMeanAveragePrecision:
        """Keeps all detections and all ground truth."""
        return self._make(num_classes)

    def figures(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """`map`, under both protocols too, `ap_median`, and `ap/<class>`."""
        return ap_figures(curves_of(metric), class_names, self.interpolation)

    def thresholds(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """From where on each class's F1 is best; that of all together where objects are few."""
        assert isinstance(metric, VOCMeanAveragePrecision)
        detections, gt = metric.tables()
        matched = metric.match(detections, gt)
        own = curves_of_classes(detections, gt, metric.num_classes, matched)
        for table in (detections, gt):  # copies of the metric's
            table[:, 1] = 0
        (joint,) = curves_of_classes(detections, gt, 1, matched)
        best = [best_f1_score(c if c.num_gt >= ENOUGH_OBJECTS else joint) for c in own]
        named = zip(class_names, best, strict=True)
        return {name: score for name, score in named if math.isfinite(score)}

    def result(self, metric: Metric, data: DataModule) -> Result:
        """See `Evaluator.result`."""
        assert isinstance(metric, VOCMeanAveragePrecision)
        tables, split = metric.tables(), data.split("test")
        counted = metric.counted()
        matched = metric.match(*counted)
        curves = curves_of_classes(*counted, metric.num_classes, matched)
        figures = ap_figures(curves, data.class_names, self.interpolation)
        if len(split) <= FEW_IMAGES:
            counts = resampled(len(split))
            maps = resampled_maps(*counted, metric.num_classes, matched, counts, self.interpolation)
            figures |= interval("map", maps)
        gallery = make_gallery(split, tables, curves, metric.match, data.class_names, PICTURES)
        names = data.class_names
        recall = ProposalRecall.of(split) if split.store is not None else None
        return Result(
            figures,
            ap_table(figures, names, self.interpolation,
                     [n for n, c in zip(names, curves, strict=True)
                      if c.num_gt and not len(c.scores)]),
            DetectionPredictions(*tables, split.image_ids, list(names)),
            self._page(figures, curves, gallery, data, recall),
            media_of(figures, curves, gallery, names),
            recall.figures() if recall else {},
        )  # fmt: skip

    def _page(
        self,
        figures: dict[str, float],
        curves: Sequence[PRCurve],
        gallery: dict[str, list[Picture]],
        data: DataModule,
        recall: ProposalRecall | None,
    ) -> Page:
        split, names = data.split("test"), data.class_names
        aps = [figures[f"ap/{name}"] for name in names]
        main = NAMES[self.interpolation]
        other: Interpolation = "11point" if self.interpolation == "area" else "area"
        cards = [
            Card(
                f"{percent(figures['map'])} %",
                f"mAP at IoU 0.5 ({main}){interval_text(figures, 'map')}",
                is_main=True,
            ),
            Card(f"{percent(figures[f'map_{other}'])} %", f"mAP ({NAMES[other]})"),
        ]
        cards += recall_cards(recall) if recall else []
        rows = [
            (name, ap, (percent(ap), curve.num_gt, len(curve.scores)))
            for name, ap, curve in zip(names, aps, curves, strict=True)
        ]
        rows.sort(key=lambda row: -row[1] if row[1] == row[1] else 1.0)
        pictures = {
            kind: [Shown(p.image_id, p.pixels, f"{p.image_id}, F1 {p.quality:.2f}") for p in some]
            for kind, some in gallery.items()
        }
        colours = [(kind, *colour) for kind, colour in COLOURS.items()]
        return Page(
            f"{data.name}: {len(split)} test images, {split.num_objects} objects, "
            f"{len(names)} classes",
            cards,
            [
                BarTable("Average precision of each class",
                         ("class", "AP, %", "objects", "detections"), rows),
                Plots("Precision and recall", {"": precision_recall(curves, names, aps)}),
                Gallery("Test images", pictures, colours, NOTE + numbered(names)),
            ],
        )  # fmt: skip


def recall_cards(recall: ProposalRecall) -> list[Card]:
    """What the proposals are worth: no detector finds what they do not cover."""
    covered = f"of the objects covered by proposals at IoU 0.5 ({percent(recall.at(0.7))} % at 0.7)"
    return [
        Card(f"{percent(recall.at(0.5))} %", covered),
        Card(f"{percent(recall.mabo)} %", "mean average best overlap of the proposals"),
        Card(f"{recall.boxes_per_image:.0f}", "proposals an image"),
    ]


def curves_of(metric: Any) -> list[PRCurve]:
    """The precision-recall curves of a metric that has them, one a class."""
    curves: list[PRCurve] = metric.curves()
    return curves


def ap_figures(
    curves: Sequence[PRCurve], class_names: Sequence[str], interpolation: Interpolation
) -> dict[str, float]:
    """AP of each class, their mean and median; the mean under both protocols."""
    summary = VOCMeanAveragePrecision.summary
    main = summary(curves, interpolation)
    result = {"map": float(main["map"]), "ap_median": float(main["ap"].nanquantile(0.5))}
    for protocol in BOTH:
        result[f"map_{protocol}"] = float(summary(curves, protocol)["map"])
    aps = zip(class_names, main["ap"].tolist(), strict=True)
    return result | {f"ap/{name}": ap for name, ap in aps}


def ap_table(
    figures: dict[str, float],
    class_names: Sequence[str],
    interpolation: Interpolation,
    undetected: Sequence[str] = (),
) -> Table:
    """AP of each class and the means.

    Args:
        figures: see `ap_figures`.
        class_names: C names.
        interpolation: of the headline.
        undetected: those that have objects in the test images, and of which nothing was detected.
    """
    rows: list[tuple[str, str] | None] = [(name, f"test/ap/{name}") for name in class_names]
    other = next(name for name in BOTH if name != interpolation)
    rows += [None, (f"mean, {NAMES[interpolation]}", "test/map")]
    rows += [(f"mean, {NAMES[other]}", f"test/map_{other}"), ("median", "test/ap_median")]
    absent = [name for name in class_names if np.isnan(figures[f"ap/{name}"])]
    remarks = []
    if absent:
        remarks.append(
            f"mean over {len(class_names) - len(absent)} of {len(class_names)} classes; "
            f"no object in the test images of {', '.join(absent[:10])}"
        )
    if undetected:
        remarks.append(
            f"nothing was detected of {len(undetected)} classes, which count as 0 (were there "
            f"objects of them to learn from?): {', '.join(undetected[:10])}"
        )
    return Table("average precision, %", rows, remarks)


def media_of(
    figures: dict[str, float],
    curves: Sequence[PRCurve],
    gallery: dict[str, list[Picture]],
    names: Sequence[str],
) -> list[Media]:
    """A table of APs, the curves, and images with boxes."""
    pairs = list(zip(names, curves, strict=True))
    rows = [(name, figures[f"ap/{name}"], curve.num_gt) for name, curve in pairs]
    points = [(name, *point) for name, curve in pairs for point in thinned(curve)]
    return [
        MediaTable("ap_table", ("class", "ap", "objects"), rows),
        MediaCurves("precision_recall", points),
        *(
            MediaImages(
                kind, [p.plain for p in some], [p.image_id for p in some],
                [layers(p, names) for p in some],
            )
            for kind, some in gallery.items()
        ),
    ]  # fmt: skip


def thinned(curve: PRCurve) -> list[tuple[float, float]]:
    """Recall and precision at a few places of a curve."""
    if len(curve.recall) == 0:
        return []
    count = min(CURVE_POINTS, len(curve.recall))
    chosen = np.linspace(0, len(curve.recall) - 1, count).astype(int)
    return list(zip(curve.recall[chosen].tolist(), curve.precision[chosen].tolist(), strict=True))


def layers(picture: Picture, names: Sequence[str]) -> dict[str, object]:
    """Right, false and missed boxes of a picture as three layers of W&B's."""
    return {
        kind: {
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
                for b in picture.boxes
                if b.kind == kind
            ],
        }
        for kind in COLOURS
    }
