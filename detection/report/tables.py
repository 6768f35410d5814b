"""Tables for a terminal or a log file."""

from collections.abc import Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table


def ap_table(
    figures: dict[str, float], class_names: Sequence[str], undetected: Sequence[str] = ()
) -> str:
    """AP of each class and the mean, in percent, beside the published figures if there are any.

    Args:
        figures: the content of `metrics.json`.
        class_names: C names.
        undetected: those that have objects in the test images, and of which nothing was detected.
    """
    published = {k: v for k, v in figures.items() if k.startswith("published/")}
    table = Table("class", title="average precision, %")
    table.add_column("measured", justify="right")
    if published:
        table.add_column("published", justify="right")
    rows = [(name, f"test/ap/{name}") for name in class_names]
    rows += [("mean", "test/map"), ("mean, area", "test/map_area")]
    rows += [("mean, 11 points", "test/map_11point"), ("median", "test/ap_median")]
    for label, key in rows:
        cells = [label, percent(figures[key])]
        if published:
            cells.append(percent(published.get(f"published/{key}")))
        if key == "test/map":
            table.add_section()
        table.add_row(*cells)
    absent = [
        name for name in class_names if figures[f"test/ap/{name}"] != figures[f"test/ap/{name}"]
    ]
    remarks = []
    if absent:
        remarks.append(
            f"mean over {len(class_names) - len(absent)} of {len(class_names)} classes; "
            f"no object in the test images of {', '.join(absent[:10])}"
        )
    if undetected:
        remarks.append(
            f"nothing was detected of {len(undetected)} classes, which count as 0 (were there "
            f"objects of them to learn from?): {', '.join(undetected[:10])}"
        )
    table.caption = "\n".join(remarks) or None
    text = StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()


def percent(value: float | None) -> str:
    """A share in percent with one decimal; nothing for None, a dash for nan.

    >>> percent(0.545), percent(float("nan")), percent(None)
    ('54.5', '-', '')
    """
    if value is None:
        return ""
    return f"{100 * value:.1f}" if value == value else "-"


def error_table(figures: dict[str, float]) -> str:
    """Errors and accuracy in percent, ± their spread, beside the published figures if any."""
    published = any(k.startswith("published/") for k in figures)
    table = Table("", "measured", *(["published"] if published else []), title="test images, %")
    rows = {"top-1 error": "top1_error", "top-5 error": "top5_error", "accuracy": "top1_accuracy"}
    for label, key in ((label, f"test/{name}") for label, name in rows.items()):
        spread = f" ± {percent(figures[f'{key}_sd'])}" if f"{key}_sd" in figures else ""
        beside = [percent(figures.get(f"published/{key}"))] if published else []
        table.add_row(label, percent(figures[key]) + spread, *beside)
    text = StringIO()
    Console(file=text, width=80).print(table)
    return text.getvalue()
