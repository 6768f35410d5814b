"""Tables for a terminal or a log file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO

from rich.console import Console
from rich.table import Table as RichTable


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
                `<name>_sd`, its interval goes from `<name>_low` to `<name>_high`.
        """
        beside = any(k.startswith("published/") for k in figures)
        table = RichTable("", title=self.title)
        table.add_column("measured", justify="right")
        if beside:
            table.add_column("published", justify="right")
        for row in self.rows:
            if row is None:
                table.add_section()
                continue
            label, key = row
            cells = [label, percent(figures.get(key)) + beside_figure(figures, key)]
            table.add_row(*cells, *([percent(figures.get(f"published/{key}"))] if beside else []))
        table.caption = "\n".join(self.remarks) or None
        text = StringIO()
        Console(file=text, width=80, markup=False).print(table)
        return text.getvalue()


def beside_figure(figures: Mapping[str, float], key: str) -> str:
    """How sure a figure is: its spread over repetitions, else its interval.

    >>> beside_figure({"map": 0.5, "map_low": 0.41, "map_high": 0.593}, "map")
    ' [41.0, 59.3]'
    """
    if f"{key}_sd" in figures:
        return f" ± {percent(figures[f'{key}_sd'])}"
    if f"{key}_low" in figures:
        return f" [{percent(figures[f'{key}_low'])}, {percent(figures[f'{key}_high'])}]"
    return ""


def spread(figures: Mapping[str, float], key: str) -> str:
    """A figure's interval in the report, if it has one.

    >>> spread({"map_low": 0.41, "map_high": 0.593}, "map")
    '; 41.0 to 59.3 % in 95 % of resamplings of the test images'
    """
    if f"{key}_low" not in figures:
        return ""
    low, high = (percent(figures[f"{key}_{end}"]) for end in ("low", "high"))
    return f"; {low} to {high} % in 95 % of resamplings of the test images"


def interval_remark(figures: Mapping[str, float]) -> list[str]:
    """What the brackets of a table mean, if it has some."""
    if not any(name.endswith("_low") for name in figures):
        return []
    return ["in brackets: 95 % of resamplings of the test images (bootstrap)"]


def percent(value: float | None) -> str:
    """A share in percent with one decimal; nothing for None, a dash for NaN.

    >>> percent(0.545), percent(float("nan")), percent(None)
    ('54.5', '-', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if value == value else "-"
