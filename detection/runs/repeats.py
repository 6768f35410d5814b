"""Several random splits of one data set: a run on each, their mean and spread (SPP-net, 3.3)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger

from detection.disk.files import read_figures, write_json
from detection.evaluation.classification import error_table
from detection.report.page import BarTable, Card, Page, write_page
from detection.report.tables import INTERVAL, TIME_AN_IMAGE, mean_and_deviation, percent
from detection.runs.report import tell_loggers

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
        loggers: get the mean.
        run: one run, whose figures are empty in all processes but the first.
    """
    found: dict[str, Figures] = {}
    configs = of_each_split(config)
    for number, (name, split) in enumerate(configs.items(), 1):
        log.info("split %d of %d", number, len(configs))
        done = run_dir / name / "metrics.json"
        found[name] = read_figures(done) if done.is_file() else run(split, run_dir / name)
    if not all(found.values()):
        return {}
    figures = mean_and_spread(list(found.values()))
    write_json(run_dir / "metrics.json", figures)
    table = error_table({key.removeprefix("test/"): value for key, value in figures.items()})
    log.info("mean of %d splits\n%s", len(found), table.text(figures))
    write_page(run_dir, page_of(found, figures), figures, config)
    tell_loggers(loggers, figures)
    log.info("report: %s", run_dir / "report" / "index.html")
    return figures


def page_of(found: Mapping[str, Figures], figures: Figures) -> Page:
    """The mean, and each split with a link to its own report."""
    key = next(k for k in ("test/top1_accuracy", "test/map") if k in figures)
    others = [k for k in ("test/top5_error",) if k in figures]
    name = key.removeprefix("test/").replace("_", " ")
    rows = [
        (split, f[key], [percent(f[k]) for k in (key, *others)], f"../{split}/report/index.html")
        for split, f in found.items()
    ]
    spread = f"{percent(figures[key])} ± {percent(figures[f'{key}_sd'])} %"
    columns = ("split", f"{name}, %", *(f"{k.removeprefix('test/')}, %" for k in others))
    return Page(
        f"mean of {len(found)} random splits",
        [Card(spread, f"{name}, mean ± standard deviation", is_main=True)],
        [BarTable("Each split", columns, rows)],
    )


def mean_and_spread(found: Sequence[Figures]) -> Figures:
    """Means over splits, and of what was tested the standard deviation too; times are summed.

    A figure that not every split has (a class without a test image there) is left out, and so
    are the intervals of each: the standard deviation takes their place.

    >>> mean_and_spread([{"test/top1_accuracy": 0.75, "time/svm_s": 1.0}] * 2)
    {'test/top1_accuracy': 0.75, 'test/top1_accuracy_sd': 0.0, 'time/svm_s': 2.0}
    """
    result = {}
    common = [k for k in found[0] if all(k in figures for figures in found)]
    for key in (k for k in common if f"/{INTERVAL}" not in k):
        values = [figures[key] for figures in found]
        mean, deviation = mean_and_deviation(values)
        is_stage = key.startswith("time/") and not key.startswith(TIME_AN_IMAGE)
        result[key] = sum(values) if is_stage else mean
        if key.startswith(("test/", "val/")):
            result[f"{key}_sd"] = deviation
    return result
