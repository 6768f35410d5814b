"""Parts of the flat content of `metrics.json` that several kinds of tests have."""

from collections.abc import Mapping, Sequence

from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.voc_ap import Interpolation, PRCurve


def ap_figures(
    curves: Sequence[PRCurve], class_names: Sequence[str], interpolation: Interpolation
) -> dict[str, float]:
    """AP of each class, their mean and median; the mean under both protocols."""
    summary = VOCMeanAveragePrecision.summary
    chosen = summary(curves, interpolation)
    result = {
        "test/map": float(chosen["map"]),
        "test/ap_median": float(chosen["ap"].nanquantile(0.5)),
    }
    protocols: tuple[Interpolation, ...] = ("area", "11point")
    for protocol in protocols:
        result[f"test/map_{protocol}"] = float(summary(curves, protocol)["map"])
    aps = zip(class_names, chosen["ap"].tolist(), strict=True)
    return result | {f"test/ap/{name}": ap for name, ap in aps}


def run_figures(seconds: Mapping[str, float], published: Mapping[str, float]) -> dict[str, float]:
    """Seconds of each stage and of the test, and the paper's figures."""
    times = {f"time/{stage}_s": value for stage, value in seconds.items()}
    return times | {f"published/{name}": value for name, value in published.items()}
