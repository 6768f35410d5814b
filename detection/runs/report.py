"""What a run leaves of its result: figures, predictions, the page, media; written once for all."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from detection.data.module import DataModule
from detection.disk.files import write_json
from detection.disk.run_files import NAME
from detection.report.media import log_media
from detection.report.page import Plots, write_page
from detection.report.plots import filter_plots
from detection.report.tables import TIME_AN_IMAGE
from detection.runs.measure import Measured
from detection.training.model import Model

log = logging.getLogger(__name__)

FILTERS = (
    "Each filter is scaled to its own extremes. The second layer's look at maps, not at colours: "
    "shown is a filter's part on one map of the first layer, the one it weighs most."
)


def write_result(
    run_dir: Path,
    model: Model,
    data: DataModule,
    tested: Measured,
    validated: Measured,
    seconds: Mapping[str, float],
    config: Mapping[str, Any],
    loggers: Sequence[Logger],
) -> dict[str, float]:
    """Write figures, predictions and the report, print the table, tell the loggers; the figures.

    Args:
        run_dir: of the run.
        model: whose filters are shown, and whatever else its method shows of itself.
        data: that it was tested on.
        tested: the test.
        validated: the same on validation images; empty where there are none.
        seconds: of each stage.
        config: of the run, with the published figures and those of other systems.
        loggers: W&B and others.
    """
    result = tested.result
    assert result is not None
    published = config.get("published") or {}
    sizes = {"model/parameters": float(sum(p.numel() for p in model.parameters()))}
    figures = all_figures(tested, validated, seconds, published) | data.figures | sizes
    write_json(run_dir / "metrics.json", figures)
    result.predictions.save(run_dir)
    result.page.sections += model.sections(data)
    text = result.table.text(figures, config.get("reference") or {})
    log.info("test on %s\n%s", config["data"]["name"], text)
    if filters := filter_plots(model):
        result.page.sections.append(Plots("Filters of the first layers", filters, FILTERS))
    write_page(run_dir, result.page, figures, config)
    tell_loggers(loggers, figures)
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            log_media(logger, result.media, "test")
    log.info("report: %s", run_dir / "report" / "index.html")
    if (run_dir / NAME).is_file():
        log.info(
            "on photographs of your own: python -m detection.predict ckpt=%s images=FOLDER "
            "out=FOLDER; on other data: python evaluate.py ckpt=%s data=...", run_dir, run_dir,
        )  # fmt: skip
    return figures


def all_figures(
    tested: Measured,
    validated: Measured,
    seconds: Mapping[str, float],
    published: Mapping[str, float],
) -> dict[str, float]:
    """The flat content of `metrics.json`."""
    figures = {f"test/{name}": value for name, value in tested.figures.items()}
    if tested.result is not None:
        figures |= tested.result.about_data
    figures |= {f"val/{name}": value for name, value in validated.figures.items()}
    times = {**seconds, "validation": validated.seconds, "test": tested.seconds}
    figures |= {f"time/{stage}_s": value for stage, value in times.items() if value}
    figures |= {f"{TIME_AN_IMAGE}{part}_s": value for part, value in tested.by_part.items()}
    return figures | {f"published/{name}": value for name, value in published.items()}


def tell_loggers(loggers: Sequence[Logger], figures: Mapping[str, float]) -> None:
    """Log the figures that are numbers."""
    for logger in loggers:
        logger.log_metrics({k: v for k, v in figures.items() if not math.isnan(v)})
