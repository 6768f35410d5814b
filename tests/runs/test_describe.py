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


def test_mistakes():
    with pytest.raises(UserError, match="such as 281x317"):
        describe(["model=overfeat", "input=281"])
    with pytest.raises(UserError, match=r"input=50 is too small for this network"):
        describe(["model=overfeat", "input=50x80"])
    for model in (["model=sppnet", "data=shapes"], ["model=feature_svm"]):
        with pytest.raises(UserError, match="must be a classifier"):
            describe(model)
