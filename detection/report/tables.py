"""Tables for a terminal or a log file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from statistics import fmean, stdev

from rich.console import Console
from rich.table import Table as RichTable

INTERVAL = "interval/"  # before the names of the ends of intervals: no class can be called so
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

    def text(self, figures: Mapping[str, float]) -> str:
        """The table, with the published figures beside the measured ones if there are any.

        Args:
            figures: the content of `metrics.json`; a figure's spread over repetitions is
                `<name>_sd`, the ends of its interval `test/interval/<name>_low`, `_high`.
        """
        beside = any(k.startswith("published/") for k in figures)
        table = RichTable("", title=self.title)
        table.add_column("measured", justify="right")
        if beside:
            table.add_column("published", justify="right")
        bracketed = False
        for row in self.rows:
            if row is None:
                table.add_section()
                continue
            label, key = row
            sureness = beside_figure(figures, key)
            bracketed |= "[" in sureness
            cells = [label, percent(figures.get(key)) + sureness]
            table.add_row(*cells, *([percent(figures.get(f"published/{key}"))] if beside else []))
        remarks = [*self.remarks, BRACKETS] if bracketed else self.remarks
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
