"""What the test of a detector found, and all that is written and shown of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger
from torch import Tensor

from detection.data.detection_data import DetectionData
from detection.disk.files import write_json
from detection.metrics.voc_ap import PRCurve
from detection.report.figures import ap_figures, run_figures
from detection.report.media import log_media
from detection.report.page import write_report
from detection.report.result_files import write_detections
from detection.report.tables import ap_table

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """A test's results.

    Attributes:
        data: what was tested on.
        curves: precision and recall for each class.
        tables: all detections (D, 7) and truths (T, 7); see `VOCMeanAveragePrecision`.
        seconds: time of each stage and of the test.
    """

    data: DetectionData
    curves: list[PRCurve]
    tables: tuple[Tensor, Tensor]
    seconds: dict[str, float]

    def figures(self, published: dict[str, float]) -> dict[str, float]:
        """The flat content of `metrics.json`."""
        result = ap_figures(self.curves, self.data.class_names, self.data.interpolation)
        return result | self.data.recall | run_figures(self.seconds, published)

    def undetected(self) -> list[str]:
        """Classes with objects in the test images, of which nothing was detected."""
        curves = zip(self.data.class_names, self.curves, strict=True)
        return [name for name, curve in curves if curve.num_truths and not len(curve.scores)]

    def report(
        self, run_dir: Path, config: dict[str, Any], loggers: Sequence[Logger]
    ) -> dict[str, float]:
        """Write figures, detections and the report, print the table, tell the loggers."""
        figures = self.figures(config.get("published") or {})
        write_json(run_dir / "metrics.json", figures)
        dataset, names = self.data.datasets["test"], self.data.class_names
        write_detections(run_dir / "detections", self.tables[0], dataset.image_ids, names)
        table = ap_table(figures, names, self.undetected())
        log.info("test on %s\n%s", self.data.name, table)
        gallery = write_report(run_dir, self.data, self.curves, self.tables, figures, config)
        for logger in loggers:
            logger.log_metrics({k: v for k, v in figures.items() if v == v})
            if isinstance(logger, WandbLogger):
                log_media(logger, self.data, self.curves, figures, gallery)
        log.info("report: %s", run_dir / "report" / "index.html")
        return figures
