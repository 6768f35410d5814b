"""The course of `detection.compare`: run folders → one table of what differs and what came out."""

import glob
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from detection.config.command import run
from detection.config.help import asks_for_help
from detection.config.plain import flat
from detection.disk.files import read_figures, write_text
from detection.errors import UserError
from detection.report.comparison import FORMATS, Comparison, Row
from detection.report.tables import mean_and_deviation

HELP = """python -m detection.compare RUN [RUN ...] [out=FILE] [figures=[NAME,...]] [fold=false]

Prints runs side by side, read from their folders alone: a row for each (runs that differ in their
seed only are one, with mean ± standard deviation), columns for what differs in their configs, for
their figures, and for the minutes they took; published figures stand in brackets. What cannot be
compared, such as tests on other images, is said below.

  RUN                 the folder of a run or of a test by evaluate.py, or a pattern such as 'runs/*'
  out=FILE            .md, .csv or .html: the same as a file; .html shows pictures of the same
                      test images too, a run a column
  figures=[test/map]  names in metrics.json; by default what the tasks are judged by
  fold=false          a row for each seed"""

HEADLINES = (  # of every task, in this order
    "test/map", "test/loc_error_true_class", "test/loc_error_top1", "test/loc_error_top5",
    "test/top1_error", "test/top5_error",
)  # fmt: skip
# Where a run lies and who follows it, not what it is.
ELSEWHERE = (
    "run_dir",
    "paths",
    "logger",
    "callbacks",
    "published",
    "reference",
    "choices",
    "optimized_metric",
)
NOT_DECISIVE = (
    "seed", "data.cache", "data.layout.cache", "data.threads", "data.num_workers",
    "data.source.download_to", "trainer.devices", "trainer.accelerator", "trainer.strategy",
)  # fmt: skip
PICTURES = "random_*.jpg"  # of a report: the same images of the same test, whatever the run


@dataclass(frozen=True)
class RunRecord:
    """What a run's folder says of it.

    Attributes:
        folder: of the run.
        seed: of the run.
        choices: of each group of configs, such as model.
        values: of its config, by dotted names, without those that say where it lies.
        figures: of `metrics.json`; empty while it is not finished.
        state: "", or how far an unfinished run is.
        tested_on: stands for its test images; None: unknown.
    """

    folder: Path
    seed: object
    choices: Mapping[str, str]
    values: Mapping[str, Any]
    figures: Mapping[str, float]
    state: str
    tested_on: tuple[object, ...] | None


def read_run(folder: Path) -> RunRecord:
    """What the folder of a run, or of a test, says.

    Raises:
        UserError: it is no such folder, or a file in it is damaged.
    """
    file, metrics = folder / "config.yaml", folder / "metrics.json"
    if not file.is_file():
        raise UserError(f"{folder} is no run: it has no config.yaml")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
    try:
        config = yaml.load(file.read_text(encoding="utf-8"), loader)
        figures = read_figures(metrics) if metrics.is_file() else {}
    except (yaml.YAMLError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} has a damaged file: {str(error).splitlines()[0]}") from None
    if not isinstance(config, dict):
        raise UserError(f"{folder} has a damaged file: config.yaml")
    values = {
        key: value
        for key, value in flat(config).items()
        if key.split(".")[0] not in ELSEWHERE and key not in NOT_DECISIVE
    }
    state = "" if figures else unfinished(folder, config)
    choices = config.get("choices") or {"model": method_of(config)}
    return RunRecord(folder, config.get("seed"), choices, values, figures, state, tested_on(folder))


def method_of(config: Mapping[str, Any]) -> str:
    """A name for the model of a run that did not keep its choices: its class, or its checkpoint."""
    target = (config.get("model") or {}).get("_target_")
    return str(target).rpartition(".")[2] if target else str(config.get("ckpt", "?"))


def unfinished(folder: Path, config: Mapping[str, Any]) -> str:
    """How far a run is."""
    stages = [
        name for name, stage in (config.get("model") or {}).get("stages", {}).items() if stage
    ]
    done = len(list(folder.glob("**/stages/*/done")))
    return f"unfinished: {done} of {len(stages) * int(config.get('num_models', 1))} stages done"


def tested_on(folder: Path) -> tuple[object, ...] | None:
    """The classes and the images that were tested on; None where they are not kept."""
    import numpy as np  # not for --help

    try:
        with np.load(folder / "predictions.npz") as kept:
            images = kept["images" if "images" in kept else "image_ids"]
            return (*kept["class_names"].tolist(), *np.unique(images).tolist())
    except (OSError, ValueError, KeyError, EOFError):
        return None


def fold(records: Sequence[RunRecord]) -> list[list[RunRecord]]:
    """Runs that differ in their seed only, together; in the order in which they were named."""
    groups: dict[str, list[RunRecord]] = {}
    for record in records:
        state = "" if record.figures else str(record.folder)  # an unfinished one stays alone
        test = repr(record.tested_on)  # of another folder by the same name, perhaps
        key = json.dumps([dict(record.choices), dict(record.values), state, test], sort_keys=True,
                         default=str)  # fmt: skip
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def what_differs(records: Sequence[RunRecord]) -> list[str]:
    """Names of the groups whose choices differ, and of the values that differ without them.

    Another model is another tree of values: where runs chose differently, the choice says it. A
    value is named if it differs between two runs of the same choices.
    """
    # older runs kept no choices but the model's name
    groups = sorted(set.intersection(*(set(record.choices) for record in records)))
    differing = [g for g in groups if len({record.choices.get(g) for record in records}) > 1]
    alike: dict[tuple[object, ...], list[RunRecord]] = defaultdict(list)
    for record in records:
        alike[tuple(record.choices.get(g) for g in groups)].append(record)
    keys = set()
    for some in alike.values():
        for key in {key for record in some for key in record.values}:
            if len({json.dumps(r.values.get(key), default=str) for r in some}) > 1:
                keys.add(key)
    return [*differing, *sorted(keys)]


def compare(
    records: Sequence[RunRecord],
    figures: Sequence[str] = (),
    seeds: bool = True,
    others: Sequence[str] = (),
) -> Comparison:
    """The table of some runs.

    Args:
        records: of at least one run.
        figures: names of the figures; none: what their tasks are judged by.
        seeds: runs of other seeds are one row.
        others: remarks.

    Raises:
        UserError: no run has one of the figures; lists those that there are.
    """
    groups = fold(records) if seeds else [[record] for record in records]
    every = {name for record in records for name in record.figures}
    for name in figures:
        if name not in every or not name.startswith(("test/", "val/", "proposals/")):
            listed = ", ".join(sorted(n for n in every if n.startswith(("test/", "val/")))[:30])
            raise UserError(f"figures: no run has {name}; there are {listed}")
    names = list(figures) or [name for name in HEADLINES if name in every]
    firsts = [group[0] for group in groups]
    columns = what_differs(firsts)
    if not seeds:
        columns.append("seed")
    tests = list(dict.fromkeys(first.tested_on for first in firsts))
    numbers = [tests.index(f.tested_on) if f.tested_on else None for f in firsts]
    rows = [row_of(group, columns, n) for group, n in zip(groups, numbers, strict=True)]
    return Comparison(columns, names, rows, [*others, *remarks(groups)])


def row_of(group: Sequence[RunRecord], columns: Sequence[str], test: int | None) -> Row:
    """One or several runs as a row; see `Row` for `test`."""
    first = group[0]
    known = {**first.values, **first.choices, "seed": first.seed}
    names = {name for record in group for name in record.figures if "interval/" not in name}
    found: dict[str, list[float]] = {
        name: [record.figures[name] for record in group if name in record.figures] for name in names
    }
    spread = {n: mean_and_deviation(v)[1] for n, v in found.items() if len(v) > 1}
    spread |= {  # of a run over several splits
        name.removesuffix("_sd"): values[0]
        for name, values in found.items()
        if name.endswith("_sd") and len(values) == 1
    }
    name = first.folder.name if len(group) == 1 else f"{first.folder.name} + {len(group) - 1}"
    return Row(
        name, len(group), [known.get(column) for column in columns],
        {n: mean_and_deviation(v)[0] for n, v in found.items() if not n.endswith("_sd")}, spread,
        first.state, test, sorted(first.folder.glob(f"report/pictures/{PICTURES}")),
    )  # fmt: skip


def remarks(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """What cannot be compared, and what is not there."""
    found = []
    tests: dict[tuple[object, ...], list[str]] = defaultdict(list)
    for group in groups:
        for record in group:
            if record.tested_on is not None:
                tests[record.tested_on].append(record.folder.name)
            elif record.figures:
                found.append(f"{record.folder.name}: on which images it was tested is not kept")
            if record.state:
                found.append(f"{record.folder.name}: {record.state}")
    if len(tests) > 1:
        parts = [", ".join(names) for names in tests.values()]
        found.append("figures of tests on other images cannot be compared: " + "; ".join(parts))
    return found


def find_runs(words: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Folders of runs by their names or patterns, and what was named that is no run.

    Raises:
        UserError: a name stands for nothing, or nothing is a run.
    """
    found: list[Path] = []
    others: list[str] = []
    for word in words:
        path = Path(word).expanduser()
        holds_runs = path.is_dir() and not is_run(path)
        if holds_runs:
            matches = sorted(path.iterdir())
        else:  # a name may hold what a pattern may
            names = [path] if path.exists() else sorted(glob.glob(str(path)))
            matches = [Path(name) for name in names]
        if not matches:
            raise UserError(f"there is no run at {word}: a run's folder has a config.yaml")
        if not holds_runs:
            others += [f"{match} is no run" for match in matches if not is_run(match)]
        found += [match for match in matches if is_run(match) and match not in found]
    if not found:
        raise UserError(f"there is no run in {', '.join(words)}: a run's folder has a config.yaml")
    return found, others


def is_run(path: Path) -> bool:
    """Whether a path is the folder of a run, or of a test."""
    return (path / "config.yaml").is_file()


def start() -> None:
    """Read the words of the command line, print the table, and write it."""
    if asks_for_help(sys.argv[1:]):
        print(HELP)
        return
    options = {"out": "", "figures": "", "fold": "true"}
    names = []
    for word in sys.argv[1:]:
        key, equals, value = word.partition("=")
        if equals and key in options:
            options[key] = value
        else:
            names.append(word)
    if not names:
        raise UserError("name at least one run: python -m detection.compare runs/*; see --help")
    if options["fold"] not in ("true", "false"):
        raise UserError(f"fold={options['fold']}: true or false")
    out = Path(options["out"]).expanduser() if options["out"] else None
    if out is not None and out.suffix not in FORMATS:
        raise UserError(f"out={out}: its name must end in {', '.join(FORMATS)}")
    figures = [n.strip() for n in options["figures"].strip("[]").split(",") if n.strip()]
    folders, others = find_runs(names)
    records = [read_run(folder) for folder in folders]
    table = compare(records, figures, options["fold"] == "true", others)
    print(table.text())
    if out is not None:
        write_text(out, FORMATS[out.suffix](table))
        print(f"written to {out}")


def main() -> None:
    """Run the command; see `detection.config.command.run` for its exit codes."""
    run(start)
