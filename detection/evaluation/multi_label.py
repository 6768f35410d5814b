"""Images of several classes: average precision of each class over all images (VOC's task)."""

from collections.abc import Sequence

from torchmetrics import Metric

from detection.data.module import DataModule
from detection.evaluation.detection import NAMES, ap_figures, ap_table, curves_of
from detection.evaluation.evaluator import Result
from detection.metrics.voc_ap import Interpolation
from detection.metrics.voc_classification import VOCClassificationAP
from detection.report.page import BarTable, Card, Page, Plots
from detection.report.plots import precision_recall
from detection.report.result_files import ScorePredictions
from detection.report.tables import percent


class MultiLabelEvaluator:
    """mAP of classification, as PASCAL VOC has it.

    Args:
        interpolation: of the headline AP: "11point" (VOC 2007) or "area" (since 2010).
    """

    headline = "map"

    def __init__(self, interpolation: Interpolation = "11point") -> None:
        self.interpolation: Interpolation = interpolation

    def metric(self, num_classes: int) -> VOCClassificationAP:
        """Keeps all scores and labels."""
        return VOCClassificationAP(num_classes, self.interpolation)

    def figures(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """`map`, under both protocols too, `ap_median`, and `ap/<class>`."""
        return ap_figures(curves_of(metric), class_names, self.interpolation)

    def thresholds(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """None: the best guesses are shown, whatever their scores."""
        return {}

    def result(self, metric: Metric, data: DataModule) -> Result:
        """See `Evaluator.result`."""
        assert isinstance(metric, VOCClassificationAP)
        curves, names, split = metric.curves(), data.class_names, data.split("test")
        figures = self.figures(metric, names)
        aps = [figures[f"ap/{name}"] for name in names]
        rows = [
            (name, ap, (percent(ap), curve.num_gt))
            for name, ap, curve in zip(names, aps, curves, strict=True)
        ]
        main = NAMES[self.interpolation]
        page = Page(
            f"{data.name}: {len(split)} test images, {len(names)} classes",
            [
                Card(f"{percent(figures['map'])} %", f"mAP of classification ({main})", True),
                Card(f"{percent(figures['map_area'])} %", "mAP (area)"),
            ],
            [
                BarTable("Average precision of each class", ("class", "AP, %", "images"), rows),
                Plots("Precision and recall", {"": precision_recall(curves, names, aps)}),
            ],
        )
        table = metric.table()
        images = [split.image_id(i) for i in table["image_ids"].tolist()]
        predictions = ScorePredictions(table["scores"], table["labels"], images, list(names))
        return Result(figures, ap_table(figures, names, self.interpolation), predictions, page)
