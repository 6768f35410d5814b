"""Training of a whole network on warped windows (R-CNN, section 2.3)."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from detection.data.detection import DetectionSplit
from detection.data.module import DataModule
from detection.data.samples import as_image
from detection.disk.images import ImageCache
from detection.evaluation.evaluator import Evaluator
from detection.matching import Matcher
from detection.regions.detector import RegionDetector
from detection.regions.sampling import (
    VAL_SEED,
    VAL_SHARE,
    Tables,
    Windows,
    WindowSampler,
    draw,
    window_loss,
)
from detection.regions.warped_features import WarpedFeatures
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    TrainingLength,
    step_decay,
)
from detection.training.stage import Stage, mixed

Batch = tuple[list[Tensor], list[Tensor], Tensor, Tensor, str]
"""uint8 (3, H, W) images, (R', 4) windows of each, (R,) labels, (R,) mirror, the images' ids."""


@dataclass(frozen=True)
class Drawing:
    """How batches are drawn.

    Attributes:
        batches: how many.
        per_batch: object and background windows in each.
        flip: mirror half of the windows.
        seed: of all of it.
        threads: that decode images.
    """

    batches: int
    per_batch: tuple[int, int]
    flip: bool
    seed: int
    threads: int


class WindowBatches(IterableDataset[Batch]):
    """Batches drawn uniformly over all windows of a data set (R-CNN, section 2.3).

    Threads decode the images of the next batches while the network works on this one; the
    windows are cut out on the network's device.

    Args:
        dataset: whose windows they are.
        images: of it, decoded.
        tables: its windows.
        drawing: how they are drawn.
    """

    def __init__(
        self, dataset: DetectionSplit, images: ImageCache, tables: Tables, drawing: Drawing
    ) -> None:
        self.dataset = dataset
        self.images = images
        self.tables = tables
        self.drawing = drawing

    def __len__(self) -> int:
        return self.drawing.batches

    def __iter__(self) -> Iterator[Batch]:
        drawing = self.drawing
        generator = np.random.default_rng(drawing.seed)
        windows = draw(*self.tables, drawing.batches, drawing.per_batch, generator)
        mirror = generator.random(len(windows)) < (0.5 if drawing.flip else 0.0)
        with ThreadPoolExecutor(drawing.threads) as pool:
            ahead: deque[Future[Batch]] = deque()
            for rows in np.split(np.arange(len(windows)), drawing.batches):
                ahead.append(pool.submit(self.load, windows.take(rows), mirror[rows]))
                if len(ahead) > drawing.threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def load(self, windows: Windows, mirror: NDArray[np.bool_]) -> Batch:
        """One batch, its windows ordered by image."""
        order = np.argsort(windows.image, kind="stable")
        windows, mirror = windows.take(order), mirror[order]
        indices, starts = np.unique(windows.image, return_index=True)
        boxes = np.split(windows.box, starts[1:])
        names, paths = self.dataset.image_ids, self.dataset.paths
        return (
            [as_image(self.images[paths[i]]) for i in indices],
            [torch.from_numpy(b) for b in boxes],
            torch.from_numpy(windows.label),
            torch.from_numpy(mirror),
            ", ".join(names[i] for i in indices[:8]),
        )


MOST_VAL_BATCHES = 20


@dataclass(frozen=True, kw_only=True)
class WarpedTrainingOptions:
    """R-CNN's fine-tuning of a network that has weights.

    Attributes:
        name: of the stage.
        only_without_weights: skip the stage where the backbone has weights.
        split: list of the data to train on, within its train split; None: all of that.
        matcher: which windows are objects and background (R-CNN, 2.3: the rest, however far).
        batch_size: windows in a batch, for each process (R-CNN, 2.3).
        foreground_fraction: share of object windows (R-CNN, 2.3: 32 and 96).
        length: 70,000 batches on VOC 2007's 5,011 images (R-CNN's README).
        optimizer: of the network's weights (R-CNN, 2.3; pascal_finetune_solver.prototxt).
        head_factor: the new classifier learns this many times as fast
            (pascal_finetune_train.prototxt).
        bias_factor: and biases this many times as fast as their layer; they do not decay.
        schedule: to a tenth every 20,000 of 70,000 batches (pascal_finetune_solver.prototxt).
        dropout: after fc6 and fc7 (Krizhevsky et al. 2012).
        flip: mirror half of the windows (window_data_layer.cpp).
        memory_gb: of decoded images kept between epochs.
    """

    name: str = "finetune"
    only_without_weights: bool = False
    split: str | None = None
    matcher: Matcher = Matcher(0.5, 0.0, 0.5)
    batch_size: int = 128
    foreground_fraction: float = 0.25
    length: TrainingLength = TrainingLength(13.97)
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    head_factor: float = 10
    bias_factor: float = 2
    schedule: ScheduleFactory = partial(step_decay, at=[0.2857, 0.5714, 0.8571])
    dropout: float = 0.5
    flip: bool = True
    memory_gb: float = 4.0

    def stage(
        self, model: RegionDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "WarpedTrainingStage":
        """The stage that trains so."""
        return WarpedTrainingStage(model, data, evaluator, seed, options=self)


class WarpedTrainingStage(Stage):
    """Learns all layers and the (C + 1)-way classifier from warped windows.

    It fine-tunes a network that has weights, and trains one that has none.

    Args:
        model: to be trained; its features are `WarpedFeatures`.
        data: to train on, with proposals.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    model: RegionDetector

    def __init__(
        self,
        model: RegionDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: WarpedTrainingOptions = WarpedTrainingOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.name = options.name
        self.options = options
        self.sampler = WindowSampler(
            data.splits, model.num_classes, options.matcher, options.split, options.batch_size,
            options.foreground_fraction,
        )  # fmt: skip
        self.epochs, self.steps = options.length.epochs(len(self.sampler.images))
        self.images = ImageCache(int(options.memory_gb * 2**30))

    @property
    def features(self) -> WarpedFeatures:
        """The model's."""
        assert isinstance(self.model.features, WarpedFeatures)
        return self.model.features

    def learns(self) -> Sequence[nn.Module]:
        """All layers that a class depends on."""
        return self.model.classifying_layers(self.features.backbone)

    def is_needed(self) -> bool:
        """Fine-tuning always; training from nothing only where there are no weights."""
        return not (self.options.only_without_weights and self.features.backbone.pretrained)

    def trainer_options(self) -> dict[str, Any]:
        """New windows in each epoch."""
        return {"max_epochs": self.epochs, "reload_dataloaders_every_n_epochs": 1}

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule, with a learning rate for each kind of parameter."""
        *network, classifier = self.learns()
        options = self.options
        groups = parameter_groups(network, classifier, options.head_factor, options.bias_factor)
        optimizer = options.optimizer(groups)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("factor")
        return self.scheduled(optimizer, options.schedule, [self.steps] * self.epochs)

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches of the epoch."""
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return self.loader("train", self.steps, seed, self.options.flip)

    def val_dataloader(self) -> DataLoader[Batch] | list[Any]:
        """The same few batches of val windows at every epoch."""
        if not self.sampler.can_validate:
            return []
        batches = max(1, min(MOST_VAL_BATCHES, self.steps // VAL_SHARE))
        return self.loader("val", batches, mixed(self.seed, VAL_SEED), False)

    def loader(self, split: str, batches: int, seed: int, flip: bool) -> DataLoader[Batch]:
        """Batches of a split, a function of the seed only."""
        threads = max(1, self.data.num_workers)
        drawing = Drawing(batches, self.sampler.per_batch, flip, seed, threads)
        drawn = WindowBatches(
            self.data.splits[split], self.images, self.sampler.windows(split), drawing
        )
        return DataLoader(drawn, batch_size=None)

    def logits(self, batch: Batch, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) of a batch's windows."""
        images, boxes, _, mirror, _ = batch
        return self.model.logits(self.features(images, boxes, mirror), dropout).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy over the classes and background."""
        return window_loss(self, self.logits(batch, self.options.dropout), batch[2], batch[4])

    def classify(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Logits of val windows."""
        return self.logits(batch), batch[2]


def parameter_groups(
    network: Sequence[nn.Module], classifier: nn.Module, head_factor: float, bias_factor: float
) -> list[dict[str, Any]]:
    """The trained parameters by the factor on their learning rate; only weights decay.

    caffe, rcnn: finetuning/voc_2012_prototxt/pascal_finetune_train.prototxt.
    """
    groups: list[dict[str, Any]] = []
    for parts, factor in ((network, 1.0), ([classifier], head_factor)):
        parameters = [named for part in parts for named in part.named_parameters()]
        weights = [p for name, p in parameters if not name.endswith("bias")]
        biases = [p for name, p in parameters if name.endswith("bias")]
        groups.append({"params": weights, "factor": factor})
        groups.append({"params": biases, "factor": factor * bias_factor, "weight_decay": 0.0})
    return groups
