"""Tables for a terminal or a log file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import fmean, stdev

from rich.console import Console
from rich.table import Table as RichTable

Reference = Mapping[str, Mapping[str, Mapping[str, float]]]  # table → system → figures
NO_REFERENCE: Reference = {}
INTERVAL = "interval/"  # before the names of the ends of intervals: no class can be called so
TIME_AN_IMAGE = "time/image/"  # before the names of parts: seconds of prediction, `<part>_s`
COUNTS = ("proposals/boxes_per_image", "model/", "maps/")  # what begins so is a number of things
BRACKETS = "in brackets: 95 % of resamplings of the test images (bootstrap)"


@dataclass(frozen=True)
class Table:
    """Which figures a person sees at once, in percent.

    Attributes:
        title: above it.
        rows: label and name of each figure; a None draws a line.
        remarks: below it.
    """

    title: str
    rows: Sequence[tuple[str, str] | None]
    remarks: Sequence[str] = ()

    def text(self, figures: Mapping[str, float], reference: Reference = NO_REFERENCE) -> str:
        """The table, with the published figures beside the measured ones if there are any.

        Published figures that none of its rows has stand below them.

        Args:
            figures: the content of `metrics.json`; a figure's spread over repetitions is
                `<name>_sd`, the ends of its interval `test/interval/<name>_low`, `_high`.
            reference: figures of other systems, by the table of a paper and their names.
        """
        beside = any(k.startswith("published/") for k in figures)
        table = RichTable("", title=self.title)
        table.add_column("measured", justify="right")
        if beside:
            table.add_column("published", justify="right")
        bracketed = False
        own = {row[1] for row in self.rows if row}
        others = [name for name in published_of(figures) if name not in own]
        for row in (*self.rows, None, *[(name.removeprefix("test/"), name) for name in others]):
            if row is None:
                table.add_section()
                continue
            label, key = row
            sureness = beside_figure(figures, key)
            bracketed |= "[" in sureness
            cells = [label, shown(key, figures.get(key)) + sureness]
            published = shown(key, figures.get(f"published/{key}"))
            table.add_row(*cells, *([published] if beside else []))
        remarks = [*self.remarks, *([BRACKETS] if bracketed else []), *references(reference)]
        table.caption = "\n".join(remarks) or None
        text = StringIO()
        Console(file=text, width=80, markup=False).print(table)
        return text.getvalue()


def beside_figure(figures: Mapping[str, float], key: str) -> str:
    """How sure a figure is: its spread over repetitions, else its interval.

    >>> beside_figure({"test/interval/map_low": 0.41, "test/interval/map_high": 0.593}, "test/map")
    ' [41.0, 59.3]'
    """
    if f"{key}_sd" in figures:
        return f" ± {percent(figures[f'{key}_sd'])}"
    split, _, name = key.partition("/")
    ends = interval_ends(figures, f"{split}/{INTERVAL}{name}")
    return f" [{', '.join(ends)}]" if ends else ""


def interval_text(figures: Mapping[str, float], name: str) -> str:
    """A figure's interval in the report, if it has one.

    >>> interval_text({"interval/map_low": 0.41, "interval/map_high": 0.593}, "map")
    '; 41.0 to 59.3 % in 95 % of resamplings of the test images'
    """
    ends = interval_ends(figures, f"{INTERVAL}{name}")
    return f"; {' to '.join(ends)} % in 95 % of resamplings of the test images" if ends else ""


def interval_ends(figures: Mapping[str, float], key: str) -> list[str]:
    """Both ends of an interval in percent; nothing where there is none."""
    ends = [figures.get(f"{key}_{end}") for end in ("low", "high")]
    return [] if None in ends else [percent(end) for end in ends]


def published_of(figures: Mapping[str, float]) -> dict[str, float]:
    """The published figures of `metrics.json`, by the names of the measured ones.

    >>> published_of({"test/map": 0.5, "published/test/map": 0.592})
    {'test/map': 0.592}
    """
    start = "published/"
    return {k.removeprefix(start): v for k, v in figures.items() if k.startswith(start)}


def stage_seconds(figures: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage and test of `metrics.json`, by its name.

    >>> stage_seconds({"time/svm_s": 9.0, "time/image/conv_s": 0.1})
    {'svm': 9.0}
    """
    times = {k: v for k, v in figures.items() if k.startswith("time/")}
    return {k[5:-2]: v for k, v in times.items() if not k.startswith(TIME_AN_IMAGE)}


def references(reference: Reference) -> list[str]:
    """What papers' tables say of other systems, a line for each table and figure.

    >>> references({"table 8": {"DPM": {"test/map": 0.337}, "SS": {"test/map": 0.338}}})
    ['table 8, map: DPM 33.7, SS 33.8']
    """
    lines = []
    for place, systems in reference.items():
        for name in dict.fromkeys(name for figures in systems.values() for name in figures):
            some = [f"{s} {shown(name, f[name])}" for s, f in systems.items() if name in f]
            lines.append(f"{place}, {name.removeprefix('test/')}: {', '.join(some)}")
    return lines


def shown(name: str, value: float | None) -> str:
    """A figure as its name says: a share in percent, seconds, a count; nothing for None.

    >>> shown("test/map", 0.545), shown("time/image/conv_s", 0.0527), shown("model/parameters", 1e6)
    ('54.5', '0.0527 s', '1,000,000')
    """
    if value is None or value != value:
        return percent(value)
    if name.startswith(COUNTS):
        return f"{value:,.0f}"
    if name.startswith("time/"):
        return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"
    return percent(value)


def percent(value: float | None) -> str:
    """A share in percent with one decimal; nothing for None, a dash for NaN.

    >>> percent(0.545), percent(float("nan")), percent(None)
    ('54.5', '-', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if value == value else "-"


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a figure over repetitions; NaN where one of them is.

    >>> mean_and_deviation([0.5, 0.7])[0], mean_and_deviation([0.5])
    (0.6, (0.5, 0.0))
    """
    if any(math.isnan(value) for value in values):  # `stdev` would fail
        return math.nan, math.nan
    return fmean(values), stdev(values) if len(values) > 1 else 0.0
