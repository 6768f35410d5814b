"""The bootstrap over images, against metrics that are computed anew for each resampling."""

import pytest
import torch

from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.bootstrap import interval, mean_shares, resampled, resampled_maps
from detection.metrics.ilsvrc_det import ILSVRCDetectionMAP
from detection.metrics.voc_ap import Interpolation

CLASSES = 3


def boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.randint(0, 30, (count, 2), generator=generator).float()
    return torch.cat([corner, corner + 20], dim=1)


def drawn_images(images: int) -> tuple[list[dict], list[dict]]:
    """Detections near some objects, some of them difficult."""
    generator = torch.Generator().manual_seed(3)
    preds, targets = [], []
    for _ in range(images):
        count = int(torch.randint(0, 4, (1,), generator=generator))
        gt = boxes(count, generator)
        labels = torch.randint(CLASSES, (count,), generator=generator)
        difficult = torch.rand(count, generator=generator) < 0.2
        targets.append({"boxes": gt, "labels": labels, "difficult": difficult})
        others = boxes(3, generator)
        found = {
            "boxes": torch.cat([gt + 2, others]),
            "labels": torch.cat([labels, labels.new_zeros(3)]),
        }
        preds.append(found | {"scores": torch.rand(count + 3, generator=generator)})
    return preds, targets


@pytest.mark.parametrize("interpolation", ["area", "11point"])
def test_maps_are_those_of_a_test_on_the_drawn_images(interpolation: Interpolation) -> None:
    preds, targets = drawn_images(12)
    metric = VOCMeanAveragePrecision(CLASSES, interpolation=interpolation)
    metric.update(preds, targets)
    detections, gt = metric.tables()
    counts = resampled(12)[:40]
    found = resampled_maps(
        detections, gt, CLASSES, metric.match(detections, gt), counts, interpolation
    )
    for row, of_each in zip(found.tolist(), counts.long().tolist(), strict=True):
        again = VOCMeanAveragePrecision(CLASSES, interpolation=interpolation)
        images = [i for i, times in enumerate(of_each) for _ in range(times)]
        again.update([preds[i] for i in images], [targets[i] for i in images])
        assert row == pytest.approx(float(again.compute()["map"]), abs=1e-9)


def test_what_is_blacklisted_counts_in_no_resampling() -> None:
    """ILSVRC's: each image drawn once is the test itself."""
    preds, targets = drawn_images(12)
    for target in targets[::2]:
        target["ignored"] = torch.tensor([0])
    metric = ILSVRCDetectionMAP(CLASSES)
    metric.update(preds, targets)
    counted = metric.counted()
    once = torch.ones(1, 12, dtype=torch.double)
    found = resampled_maps(*counted, CLASSES, metric.match(*counted), once, "area")
    assert float(found) == pytest.approx(float(metric.compute()["map"]), abs=1e-9)
    everything = metric.tables()
    other = resampled_maps(*everything, CLASSES, metric.match(*everything), once, "area")
    assert float(other) != pytest.approx(float(found), abs=1e-3)


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    right = torch.arange(400) < 300
    values = mean_shares(right, resampled(400))
    found = interval("accuracy", values)
    margin = 1.96 * (0.75 * 0.25 / 400) ** 0.5
    assert found["interval/accuracy_low"] == pytest.approx(0.75 - margin, abs=0.01)
    assert found["interval/accuracy_high"] == pytest.approx(0.75 + margin, abs=0.01)


def test_classes_without_objects_have_no_interval() -> None:
    nothing = torch.full((10,), torch.nan, dtype=torch.double)
    assert interval("map", nothing) == {}
