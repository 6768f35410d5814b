"""Training of a whole network on warped windows (R-CNN, section 2.3)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.warped_features import WarpedFeatures
from detection.regions.window_batches import Batch, DecodedImages, Drawing, WindowBatches
from detection.regions.window_training import WindowTraining
from detection.training.stage import mixed


@dataclass(frozen=True)
class Rates:
    """Learning rates of the layers.

    Attributes:
        base: of the network.
        head_factor: that of the new classifier is so many times as high.
        bias_factor: and that of biases so many times their layer's; they do not decay.
    """

    base: float
    head_factor: float
    bias_factor: float


class WarpedTrainingStage(WindowTraining):
    """Learns all layers and the (C + 1)-way classifier from warped windows.

    It fine-tunes a network that has weights, and trains one that has none.

    Args:
        detector: to be trained.
        data: to train on.
        seed: see `DetectionStage`.
        name: of the stage.
        only_without_weights: skip it where the backbone has weights.
        rates: see `Rates`.
        optimizer: makes one from groups of parameters.
        schedule: makes one from an optimiser and the number of steps.
        options: of `WindowTraining`; half of the windows are mirrored, and what is kept of images
            are their pixels.
    """

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        name: str,
        only_without_weights: bool,
        rates: Rates,
        optimizer: Callable[[list[dict[str, Any]]], Optimizer],
        schedule: Callable[[Optimizer, int], LRScheduler],
        **options: Any,
    ) -> None:
        super().__init__(detector, data, seed, **options)
        self.name = name
        self.only_without_weights = only_without_weights
        self.rates = rates
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.images: dict[str, DecodedImages] = {}
        detector.requires_grad_(False)
        for part in (
            detector.features.backbone.conv,
            detector.fc6,
            detector.fc7,
            detector.classifier,
        ):
            part.requires_grad_(True)

    @property
    def features(self) -> WarpedFeatures:
        """The detector's."""
        return self.detector.features

    def is_needed(self) -> bool:
        """Fine-tuning always; training from nothing only where there are no weights."""
        return not (self.only_without_weights and self.features.backbone.pretrained)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule, with a rate for each kind of parameter."""
        optimizer = self.make_optimizer(parameter_groups(self.detector, self.rates))
        schedule = self.make_schedule(optimizer, self.epochs * self.steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the epoch."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return self.loader("train", self.steps, seed, self.flip)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The same few batches of val windows at every epoch."""
        if not self.can_validate:
            return []
        return self.loader("val", max(1, min(20, self.steps // 10)), mixed(self.seed, 7), False)

    def loader(self, split: str, batches: int, seed: int, flip: bool) -> DataLoader[Batch]:
        """Batches of a split, a function of the seed alone."""
        threads = max(1, self.data.num_workers)
        drawing = Drawing(batches, self.per_batch, flip, seed, threads)
        if split not in self.images:
            self.images[split] = DecodedImages(self.data.datasets[split], self.max_bytes)
        drawn = WindowBatches(self.images[split], self.windows(split), drawing)
        return DataLoader(drawn, batch_size=None)

    def classify(self, batch: Batch, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) logits of a batch's windows."""
        images, boxes, _, mirror, _ = batch
        normalized = [self.features.backbone.normalize(image) for image in images]
        return self.detector.logits(self.features(normalized, boxes, mirror), dropout).float()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        return self.loss(self.classify(batch, self.dropout), batch[2], batch[4])

    def validation_step(self, batch: Any, index: int) -> None:
        """Loss and accuracy on val windows."""
        self.log_validation(self.classify(batch), batch[2])


def parameter_groups(detector: RegionDetector, rates: Rates) -> list[dict[str, Any]]:
    """The trained parameters by their rates; only weights decay.

    caffe, rcnn: finetuning/voc_2012_prototxt/pascal_finetune_train.prototxt.
    """
    network = [detector.features.backbone.conv, detector.fc6, detector.fc7]
    groups: list[dict[str, Any]] = []
    for parts, rate in (
        (network, rates.base),
        ([detector.classifier], rates.base * rates.head_factor),
    ):
        layers = [m for part in parts for m in part.modules()]
        layers = [m for m in layers if isinstance(m, nn.Conv2d | nn.Linear)]
        biases = [m.bias for m in layers if m.bias is not None]
        groups.append({"params": [m.weight for m in layers], "lr": rate})
        groups.append({"params": biases, "lr": rate * rates.bias_factor, "weight_decay": 0.0})
    return groups
