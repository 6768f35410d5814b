"""The page renders whatever a test came to, and never fails for want of a package's version."""

import numpy as np

from detection.report import page
from detection.report.page import (
    BarTable,
    Card,
    Gallery,
    Page,
    Plots,
    Shown,
    SmallTable,
    write_page,
)

NAN = float("nan")
SECTIONS = [
    BarTable("Bars", ("class", "AP, %"), [("cat & dog", 0.5, ["50.0"]), ("cow", NAN, [])]),
    BarTable("Links", ("split", "%"), [("one", 1.0, ["9"], "../split_1/index.html")], "note"),
    SmallTable("Pairs", ("class", "taken for"), [("cat", "dog")]),
    Plots("Curves", {"": "<svg></svg>", "named": "<svg></svg>"}, "what they are"),
    Gallery("Images", {"best": [Shown("one", np.zeros((8, 8, 3), np.uint8), "one, <F1> 1")]},
            [("right", 1, 2, 3), ("missed", 4, 5, 6)], "a key"),
]  # fmt: skip


def test_every_kind_of_section(tmp_path):
    shown = Page("ten images", [Card("50.0 %", "mAP", is_main=True)], SECTIONS)
    figures = {"test/map": 0.5, "time/svm_s": 90.0, "published/test/map": 0.592,
               "time/image/conv_s": 0.05}  # fmt: skip
    reference = {"table 8": {"DPM": {"test/map": 0.337}}}
    write_page(tmp_path, shown, figures, {"name": "größer", "reference": reference})
    text = (tmp_path / "report" / "index.html").read_text()
    for words in ("ten images", "50.0 %", "<td>50.0</td>", "<td>59.2</td>", "1.5 min",
                  "DPM (table 8): map", "0.05 s",
                  "cat &amp; dog",
                  "split_1/index.html", "taken for", "<svg>", "one, &lt;F1&gt; 1", "rgb(4, 5, 6)",
                  "größer"):  # fmt: skip
        assert words in text
    assert (tmp_path / "report" / "pictures" / "best_0.jpg").is_file()


def test_a_package_that_is_not_installed_under_its_name_is_no_error(tmp_path, monkeypatch):
    """opencv-contrib-python in place of its headless twin, or a run from a bare copy."""
    monkeypatch.setattr(page, "PACKAGES", ("torch", "no-such-package"))
    write_page(tmp_path, Page("nothing"), {}, {})
    assert "not installed under this name" in (tmp_path / "report" / "index.html").read_text()
