"""What learning from windows shares: fc layers on features, or a whole network on pixels."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.sampling import WindowRule, Windows, label_windows
from detection.training.detection_stage import DetectionStage
from detection.training.schedules import Length

Tables = tuple[Windows, Windows]  # all object windows and all background windows


class WindowTraining(DetectionStage):
    """Learns to tell windows of C classes and background apart (R-CNN, section 2.3).

    Windows are drawn anew for each epoch of the trainer; subclasses say how they are read.

    Args:
        detector: to be trained.
        data: to train on.
        seed: see `DetectionStage`.
        split: list of the data to train on, within its train split; None: all of that.
        rule: which windows are objects and background.
        batch_size: windows in a batch, for each process.
        foreground_fraction: share of object windows.
        length: see `Length`.
        dropout: behind fc6 and fc7.
        flip: mirror half of what is read.
        memory_gb: of what is kept of images between epochs.
    """

    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int,
        *,
        split: str | None,
        rule: WindowRule,
        batch_size: int,
        foreground_fraction: float,
        length: Length,
        dropout: float,
        flip: bool,
        memory_gb: float,
    ) -> None:
        super().__init__(detector, data, seed)
        self.chosen = data.training_images(split)
        self.rule = rule
        objects = round(batch_size * foreground_fraction)
        self.per_batch = (objects, batch_size - objects)
        self.epochs, self.steps = length.epochs(len(self.chosen))
        self.dropout = dropout
        self.flip = flip
        self.max_bytes = int(memory_gb * 2**30)
        self.labelled: dict[str, Tables] = {}

    def trainer_options(self) -> dict[str, Any]:
        """New windows in each epoch."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 1}

    def windows(self, split: str) -> Tables:
        """Object and background windows of a split, labelled once."""
        if split not in self.labelled:
            images = self.chosen if split == "train" else None
            self.labelled[split] = label_windows(
                self.data.datasets[split], self.rule, self.detector.num_classes, images
            )
        return self.labelled[split]

    @property
    def can_validate(self) -> bool:
        """Whether the val split has windows of both kinds."""
        return self.data.has_val and all(len(table) for table in self.windows("val"))

    def loss(self, logits: Tensor, labels: Tensor, images: str) -> Tensor:
        """Cross-entropy of a training batch, logged with its accuracy.

        Args:
            logits: (R, C + 1), background last.
            labels: (R,).
            images: ids of the images that the windows are of.
        """
        loss = F.cross_entropy(logits.float(), labels)
        self.log(f"{self.name}/loss", loss, prog_bar=True, batch_size=len(labels))
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log(f"{self.name}/accuracy", accuracy, batch_size=len(labels))
        return self.refuse_non_finite(loss, f"windows of images {images}")
