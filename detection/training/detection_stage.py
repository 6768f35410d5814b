"""What the stages of detectors share: how one is validated, tested and used, written once."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from detection.combine.nms import Detections
from detection.data.detection_data import DetectionData
from detection.data.samples import Sample
from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.voc_ap import PRCurve
from detection.training.stage import Stage


class DetectionStage(Stage):
    """A detector on its data. As it stands it tests; subclasses each learn one part.

    Args:
        detector: `detector([image], [proposals])` gives a list of detections.
        data: has been read, and has its proposals.
        seed: see `Stage`.
    """

    data: DetectionData

    def __init__(self, detector: nn.Module, data: DetectionData, seed: int = 0) -> None:
        super().__init__(detector, data, seed)
        num_classes = len(data.class_names)
        self.curves: list[PRCurve] = []
        self.tables = (torch.zeros(0, 7), torch.zeros(0, 7))
        self.val_map = data.metric(num_classes)
        self.test_map = data.metric(num_classes)

    def forward(self, sample: Sample) -> Detections:
        """Detections in one image."""
        result: list[Detections] = self.detector([sample.image], [sample.proposals])
        return result[0]

    # Validation and test

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The images of the val split, if there is one."""
        return self.data.loader("val") if self.data.has_val else []

    def test_dataloader(self) -> DataLoader[Sample]:
        """The images of the test split."""
        return self.data.loader("test")

    def validation_step(self, sample: Any, index: int) -> None:
        """Detect in one image."""
        take_in(self.val_map, self(sample), sample)

    def on_validation_epoch_end(self) -> None:
        """Log the mAP so far, unless this stage validates otherwise."""
        if len(self.val_map.images):
            value = self.val_map.compute()["map"]
            self.val_map.reset()
            self.log(f"{self.name}/val_map", value.float(), prog_bar=True, rank_zero_only=True)

    def test_step(self, sample: Sample, index: int) -> None:
        """Detect in one image."""
        take_in(self.test_map, self(sample), sample)

    def on_test_epoch_end(self) -> None:
        """Bring the detections of all processes together."""
        with self.test_map.sync_context():
            self.curves = self.test_map.curves()
            self.tables = self.test_map.tables()
        value = self.test_map.summary(self.curves, "area")["map"]
        self.log("test/map_area", value.float(), rank_zero_only=True)

    def predict_step(self, sample: Sample, index: int) -> Detections:
        """Detections in one image."""
        return self(sample)


def take_in(metric: VOCMeanAveragePrecision, found: Detections, sample: Sample) -> None:
    """Update a metric with one image."""
    truth = {"boxes": sample.boxes, "labels": sample.labels, "difficult": sample.difficult}
    metric.update([found], [truth], [sample.index])
