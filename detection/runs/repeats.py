"""Several random splits of one data set: a run on each, their mean and spread (SPP-net, 3.3)."""

import logging
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from detection.disk.files import read_json, write_json
from detection.report.page import write_page
from detection.report.tables import error_table

log = logging.getLogger(__name__)

Config = dict[str, Any]
Figures = dict[str, float]


def of_each_split(config: Config) -> dict[str, Config]:
    """A config for each seed of `data.layout.seed`, by the name of its folder; none if no list."""
    seeds = (config["data"].get("layout") or {}).get("seed")
    if not isinstance(seeds, list):
        return {}
    data = config["data"]
    return {
        f"split_{seed}": {**config, "data": {**data, "layout": {**data["layout"], "seed": seed}}}
        for seed in seeds
    }


def run_on_splits(
    config: Config,
    run_dir: Path,
    loggers: Sequence[Logger],
    run: Callable[[Config, Path], Figures],
) -> Figures:
    """Run on each split that is not done yet, and report the mean.

    Args:
        config: of all splits; see `of_each_split`.
        run_dir: gets a folder for each.
        loggers: told of the mean.
        run: one run, whose figures are empty in all processes but the first.
    """
    found: dict[str, Figures] = {}
    configs = of_each_split(config)
    for number, (name, split) in enumerate(configs.items(), 1):
        log.info("split %d of %d", number, len(configs))
        done = run_dir / name / "metrics.json"
        found[name] = read_json(done) if done.is_file() else run(split, run_dir / name)
    if not all(found.values()):
        return {}
    figures = mean_and_spread(list(found.values()))
    write_json(run_dir / "metrics.json", figures)
    log.info("mean of %d splits\n%s", len(found), error_table(figures))
    write_page(run_dir, "splits.html", figures, config, splits=found)
    for logger in loggers:
        logger.log_metrics(figures)
    log.info("report: %s", run_dir / "report" / "index.html")
    return figures


def mean_and_spread(found: Sequence[Figures]) -> Figures:
    """Means over splits, and of what was tested the standard deviation too; times are summed.

    >>> mean_and_spread([{"test/top1_accuracy": 0.75, "time/svm_s": 1.0}] * 2)
    {'test/top1_accuracy': 0.75, 'test/top1_accuracy_sd': 0.0, 'time/svm_s': 2.0}
    """
    result = {}
    for key in found[0]:
        values = [figures[key] for figures in found]
        result[key] = sum(values) if key.startswith("time/") else statistics.fmean(values)
        if key.startswith("test/"):
            result[f"{key}_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return result
