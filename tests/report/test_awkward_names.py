"""Classes may be called anything: pages, plots, tables and files take it."""

import os

import numpy as np
import pytest
import torch

from detection.metrics.voc_ap import PRCurve
from detection.report.drawing import drawable, numbered
from detection.report.plots import precision_recall
from detection.report.result_files import write_detections
from detection.report.tables import Table

NAMES = ["a[/b]", "[red]x", r"a $\frac$ b", "a/b", "a_b", "n" * 300, "猫", "$x_", "../up", "<b>&",
         ".", "A/B"]  # fmt: skip


@pytest.mark.filterwarnings("error")
def test_plots():
    half = torch.tensor([0.5, 1.0], dtype=torch.double)
    curves = [PRCurve(half, half, half, 3) for _ in NAMES]
    text = precision_recall(curves, NAMES, [0.5] * len(NAMES))
    assert r"a $\frac$ b" in text
    assert "猫" in text
    assert "&lt;b&gt;&amp;" in text
    assert "n" * 40 not in text


def test_tables():
    text = Table("AP", [(name, f"test/ap/{name}") for name in NAMES]).text({})
    for name in ("a[/b]", "[red]x", "a/b", "猫"):
        assert name in text


def test_files_of_their_own(tmp_path):
    detections = torch.tensor([[0, n, 0.5, 1, 1, 5, 5] for n in range(len(NAMES))]).double()
    write_detections(tmp_path / "found", detections, ["img"], NAMES)
    files = [f for f in os.listdir(tmp_path / "found") if f.startswith("comp4")]
    assert len({f.lower() for f in files}) == len(NAMES)  # where case does not count, too
    assert sorted(os.listdir(tmp_path)) == ["found"]  # nothing above it


def test_captions():
    assert [drawable(name, n)[:4] for n, name in enumerate(NAMES[:3])] == ["a[/b", "[red", "a $\\"]
    assert numbered(NAMES) == " In pictures [7] 猫."
    assert numbered(["cat"]) == ""
    assert np.all([len(drawable(name, n)) <= 24 for n, name in enumerate(NAMES)])
