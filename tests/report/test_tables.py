"""Figures beside each other in a table: repetitions, intervals, names that look like them."""

from detection.report.tables import BRACKETS, Table


def test_an_interval_stands_in_brackets_and_is_explained():
    figures = {"test/map": 0.5, "test/interval/map_low": 0.4, "test/interval/map_high": 0.625}
    text = Table("AP", [("mean", "test/map")]).text(figures)
    assert "50.0 [40.0, 62.5]" in text
    assert BRACKETS.split("(")[0].strip()[:20] in text


def test_a_spread_over_repetitions_takes_its_place():
    figures = {"test/map": 0.5, "test/map_sd": 0.01, "test/interval/map_low": 0.4,
               "test/interval/map_high": 0.6}  # fmt: skip
    text = Table("AP", [("mean", "test/map")]).text(figures)
    assert "50.0 ± 1.0" in text
    assert "brackets" not in text


def test_names_of_classes_are_no_intervals():
    figures = {"test/ap/fuel": 0.5, "test/ap/fuel_low": 0.25, "test/ap/fuel_high": 0.75}
    rows = [(name, f"test/ap/{name}") for name in ("fuel", "fuel_low", "fuel_high")]
    text = Table("AP", rows).text(figures)
    assert "[" not in text
    assert "brackets" not in text
