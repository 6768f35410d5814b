"""What a test on images of several classes found (VOC's classification task)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from detection.data.classification_data import ClassificationData
from detection.disk.files import write_json
from detection.metrics.voc_ap import PRCurve
from detection.report.figures import ap_figures, run_figures
from detection.report.page import write_page
from detection.report.plots import precision_recall
from detection.report.tables import ap_table

log = logging.getLogger(__name__)


@dataclass
class MultiLabelOutcome:
    """A test's results.

    Attributes:
        data: what was tested on.
        curves: precision and recall for each class.
        seconds: time of each stage and of the test.
    """

    data: ClassificationData
    curves: list[PRCurve]
    seconds: dict[str, float]

    def figures(self, published: dict[str, float]) -> dict[str, float]:
        """The flat content of `metrics.json`; the mean is that of 11-point APs, as in 2007."""
        result = ap_figures(self.curves, self.data.class_names, "11point")
        return result | run_figures(self.seconds, published)

    def report(
        self, run_dir: Path, config: dict[str, Any], loggers: Sequence[Logger]
    ) -> dict[str, float]:
        """Write figures and the report, print the table, tell the loggers; the figures."""
        figures = self.figures(config.get("published") or {})
        write_json(run_dir / "metrics.json", figures)
        names = self.data.class_names
        log.info("test on %s\n%s", self.data.name, ap_table(figures, names))
        aps = [figures[f"test/ap/{name}"] for name in names]
        write_page(
            run_dir,
            "multi_label.html",
            figures,
            config,
            data=self.data,
            classes=[
                {"name": n, "ap": ap, "images": c.num_truths}
                for n, ap, c in zip(names, aps, self.curves, strict=True)
            ],
            curves=precision_recall(self.curves, names, aps),
        )
        for logger in loggers:
            logger.log_metrics({k: v for k, v in figures.items() if v == v})
        log.info("report: %s", run_dir / "report" / "index.html")
        return figures
