"""The table of a network's sizes."""

from io import StringIO

import pytest
from rich.console import Console

from detection.errors import UserError
from detection.runs.describe import describe


def text(*words):
    stream = StringIO()
    Console(file=stream, width=120).print(describe(words))
    return stream.getvalue()


def test_tells_what_the_paper_does():
    """OverFeat, tables 1 and 4."""
    shown = text("model=overfeat")
    assert "145,920,872 parameters" in shown
    assert "24×24" in shown
    assert "17×17" in text("model=overfeat", "backbone=overfeat_accurate", "input=245x245")
    dense = text("model=overfeat", "backbone=overfeat_accurate", "input=389x461")
    assert all(sides in dense for sides in ("29×35", "9×11", "5×7", "15×21"))  # table 5


@pytest.mark.parametrize(
    "row", [*(f"table5/scale_{n}" for n in (1, 2, 3, 4, 6)), "table4/accurate"]
)
def test_rows_of_tables_4_and_5_stand_beside_ours(row):
    """What is printed equals what is measured; parameters to a million, connections to 1 %."""
    lines = [line.split("│") for line in text(f"experiment=overfeat/{row}").splitlines()]
    pairs = [[c.strip().replace(",", "") for c in cells[2:4]] for cells in lines
             if len(cells) == 5 and "/" in cells[1]]  # fmt: skip
    assert len(pairs) == (2 if row.startswith("table4") else 8)
    for measured, published in pairs:
        assert float(measured) == pytest.approx(float(published), rel=0.01)


def test_mistakes():
    with pytest.raises(UserError, match="such as 281x317"):
        describe(["model=overfeat", "input=281"])
    with pytest.raises(UserError, match=r"input=50 is too small for this network"):
        describe(["model=overfeat", "input=50x80"])
    for model in (["model=sppnet", "data=shapes"], ["model=feature_svm"]):
        with pytest.raises(UserError, match="must be a classifier"):
            describe(model)
