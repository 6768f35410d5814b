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
            figures: the content of `metrics.json`; a figure's spread is `<name>_sd`.
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
            spread = f" ± {percent(figures[f'{key}_sd'])}" if f"{key}_sd" in figures else ""
            cells = [label, percent(figures.get(key)) + spread]
            table.add_row(*cells, *([percent(figures.get(f"published/{key}"))] if beside else []))
        table.caption = "\n".join(self.remarks) or None
        text = StringIO()
        Console(file=text, width=80, markup=False).print(table)
        return text.getvalue()


def percent(value: float | None) -> str:
    """A share in percent with one decimal; nothing for None, a dash for NaN.

    >>> percent(0.545), percent(float("nan")), percent(None)
    ('54.5', '-', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if value == value else "-"
