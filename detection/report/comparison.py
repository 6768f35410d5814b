"""Runs side by side: as text for a terminal, as Markdown, as CSV, as a page with their pictures."""

import base64
import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table as RichTable

from detection.report.rendering import templates
from detection.report.tables import shown, stage_seconds

MOST_COLUMNS = 4  # of what differs, in a terminal
WIDEST = 28  # letters of a value in a terminal


@dataclass(frozen=True)
class Row:
    """A run, or several that differ in their seed only.

    Attributes:
        name: of its folder.
        runs: how many.
        values: of its config, in the order of the table's columns; None where it has none.
        figures: of `metrics.json`; means of several.
        spread: standard deviation of figures of several.
        state: how far an unfinished one is.
        test: rows of the same number were tested on the same images; None: on unknown ones.
        pictures: files of its report.
    """

    name: str
    runs: int
    values: Sequence[object]
    figures: Mapping[str, float]
    spread: Mapping[str, float]
    state: str
    test: int | None
    pictures: Sequence[Path]

    def figure(self, name: str) -> str:
        """A measured figure, its spread, and in brackets what was published."""
        if name not in self.figures:
            return ""
        text = shown(name, self.figures[name])
        if name in self.spread:
            text += f" ± {shown(name, self.spread[name])}"
        published = self.figures.get(f"published/{name}")
        return text if published is None else f"{text} ({shown(name, published)})"

    def times(self) -> dict[str, float]:
        """Seconds of each stage and test."""
        return stage_seconds(self.figures)

    def minutes(self) -> str:
        """Of all stages and tests together."""
        times = self.times()
        return f"{sum(times.values()) / 60:.1f}" if times else ""


@dataclass(frozen=True)
class Comparison:
    """A table of runs.

    Attributes:
        columns: names of what differs in their configs.
        figures: names of the figures, which are shares.
        rows: the runs.
        remarks: what cannot be compared.
    """

    columns: Sequence[str]
    figures: Sequence[str]
    rows: Sequence[Row]
    remarks: Sequence[str]

    @property
    def has_states(self) -> bool:
        """Whether a run is not finished."""
        return any(row.state for row in self.rows)

    def heading(self) -> list[str]:
        """Of the columns: what differs, the figures, and time."""
        figures = [f"{name.removeprefix('test/').replace('_', ' ')}, %" for name in self.figures]
        state = ["state"] if self.has_states else []
        return ["run", *self.columns, *state, *figures, "min"]

    def cells(self, row: Row) -> list[str]:
        """A row's cells, in the order of the heading."""
        values = ["" if value is None else str(value) for value in row.values]
        figures = [row.figure(name) for name in self.figures]
        state = [row.state] if self.has_states else []
        return [row.name, *values, *state, *figures, row.minutes()]

    def text(self) -> str:
        """For a terminal: of the columns only the first few; a file has all."""
        shown = self.columns[:MOST_COLUMNS]
        drop = range(1 + len(shown), 1 + len(self.columns))
        table = RichTable()
        for number, name in enumerate(self.heading()):
            if number not in drop:
                is_figure = number > len(self.columns)
                last = name.rpartition(".")[2]  # of a long name where that is enough
                is_clear = [c.rpartition(".")[2] for c in self.columns].count(last) < 2
                side: Literal["left", "right"] = "right" if is_figure else "left"
                table.add_column(last if is_clear else name, justify=side, overflow="fold")
        for row in self.rows:
            cells = [shortened(c) for n, c in enumerate(self.cells(row)) if n not in drop]
            table.add_row(*cells)
        notes = [*self.remarks]
        if len(drop):
            notes.append(
                f"more differs ({', '.join(self.columns[MOST_COLUMNS:][:8])} …): see out=FILE"
            )
        stream = StringIO()
        width = max(120, Console().width)
        Console(file=stream, width=width, markup=False, highlight=False).print(table)
        return stream.getvalue() + "".join(f"{note}\n" for note in notes)


def shortened(text: str) -> str:
    """A long value with its middle left out.

    >>> shortened("a" * 40)
    'aaaaaaaaaaaaa…aaaaaaaaaaaaaa'
    """
    half = WIDEST // 2
    return text if len(text) <= WIDEST else f"{text[: half - 1]}…{text[-half:]}"


def as_markdown(table: Comparison) -> str:
    """A table of Markdown, and what cannot be compared below it."""
    lines = [table.heading(), ["---"] * len(table.heading()), *map(table.cells, table.rows)]
    text = "".join(f"| {' | '.join(c.replace('|', '¦') for c in cells)} |\n" for cells in lines)
    return text + "".join(f"\n{note}\n" for note in table.remarks)


def as_csv(table: Comparison) -> str:
    """Every figure of every run as a plain number, whatever the table shows."""
    names = sorted({name for row in table.rows for name in row.figures})
    stream = StringIO()
    writer = csv.writer(stream)
    spread = [f"{name}_sd" for name in names if any(name in row.spread for row in table.rows)]
    writer.writerow(["run", "runs", "state", *table.columns, *names, *spread])
    for row in table.rows:
        figures = [row.figures.get(name, "") for name in names]
        deviations = [row.spread.get(name.removesuffix("_sd"), "") for name in spread]
        values = ["" if value is None else value for value in row.values]
        writer.writerow([row.name, row.runs, row.state, *values, *figures, *deviations])
    return stream.getvalue()


def as_page(table: Comparison) -> str:
    """A page that needs nothing beside it: the table, times, and the same images, a run each."""
    stages = list(dict.fromkeys(name for row in table.rows for name in row.times()))
    shown = [
        [row for row in table.rows if row.test == test and row.pictures]
        for test in dict.fromkeys(row.test for row in table.rows if row.test is not None)
    ]
    return templates(picture_url=picture_url).get_template("comparison.html").render(
        title=f"{len(table.rows)} runs side by side",
        subtitle="mean ± standard deviation over seeds; in brackets: published",
        table=table, stages=stages, shown=[some for some in shown if some],
    )  # fmt: skip


def picture_url(file: Path) -> str:
    """A JPEG file inside the page."""
    return "data:image/jpeg;base64," + base64.b64encode(file.read_bytes()).decode()


FORMATS: Mapping[str, Callable[[Comparison], str]] = {
    ".md": as_markdown,
    ".csv": as_csv,
    ".html": as_page,
}
