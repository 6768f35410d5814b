"""Which windows of a data set are objects, which are background, and which are trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detection.data.detection import DetectionSplit
from detection.errors import UserError
from detection.matching import Matcher
from detection.training.stage import Stage

VAL_SEED = 7  # beside the run's: windows to validate on are the same at every epoch
VAL_SHARE = 10  # a tenth as many batches as an epoch of training has
NO_BOX, NO_LABEL = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class Windows:
    """Windows of many images, a row each.

    Attributes:
        image: (R,) int64 index in the data set.
        box: (R, 4) float32.
        label: (R,) int64 in [0, C], C for background.
    """

    image: NDArray[np.int64]
    box: NDArray[np.float32]
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.image)

    def take(self, rows: NDArray[np.int64]) -> "Windows":
        """Some rows."""
        return Windows(self.image[rows], self.box[rows], self.label[rows])


Tables = tuple[Windows, Windows]
"""All object windows and all background windows."""


def label_windows(
    dataset: DetectionSplit,
    matcher: Matcher,
    num_classes: int,
    images: Sequence[int] | None = None,
) -> Tables:
    """All object windows and all background windows of some images (None: of all).

    Ground truth boxes are windows too.
    """
    objects, background = [as_windows(0, NO_BOX, NO_LABEL)], [as_windows(0, NO_BOX, NO_LABEL)]
    for index in range(len(dataset)) if images is None else images:
        gt, boxes = dataset.gt(index), dataset.regions(index)
        matches = matcher(boxes, gt.boxes)
        # what is neither (such as IoU 0.05 in SPP-net, which wants 0.1 to 0.5) is never drawn
        is_object, is_background = matches.is_object, matches.is_background
        objects.append(as_windows(index, boxes[is_object], gt.labels[matches.gt[is_object]]))
        nothing = torch.full((int(is_background.sum()),), num_classes)
        background.append(as_windows(index, boxes[is_background], nothing))
    return joined(objects), joined(background)


class WindowSampler:
    """What learning from windows shares: labelled windows of each split, and how they are drawn.

    Args:
        splits: of the data, by name.
        num_classes: C; background is label C.
        matcher: which windows are objects and background.
        split: list of the data to train on, within its train split; None: all of that.
        batch_size: windows in a batch, for each process.
        foreground_fraction: share of object windows.
    """

    def __init__(
        self,
        splits: Mapping[str, DetectionSplit],
        num_classes: int,
        matcher: Matcher,
        split: str | None,
        batch_size: int,
        foreground_fraction: float,
    ) -> None:
        self.splits = splits
        self.num_classes = num_classes
        self.matcher = matcher
        self.images = splits["train"].chosen(split)
        objects = round(batch_size * foreground_fraction)
        self.per_batch = (objects, batch_size - objects)
        self._labelled: dict[str, Tables] = {}

    def windows(self, split: str) -> Tables:
        """Object and background windows of a split, labelled once."""
        if split not in self._labelled:
            images = self.images if split == "train" else None
            self._labelled[split] = label_windows(
                self.splits[split], self.matcher, self.num_classes, images
            )
        return self._labelled[split]

    @property
    def can_validate(self) -> bool:
        """Whether the val split has windows of both kinds."""
        return "val" in self.splits and all(len(table) for table in self.windows("val"))


def as_windows(index: int, boxes: Tensor, labels: Tensor) -> Windows:
    """Windows of one image."""
    images = np.full(len(boxes), index, np.int64)
    return Windows(images, boxes.numpy(), labels.long().numpy())


def joined(parts: list[Windows]) -> Windows:
    """Windows of several images as one table."""
    return Windows(
        np.concatenate([p.image for p in parts]),
        np.concatenate([p.box for p in parts]),
        np.concatenate([p.label for p in parts]),
    )


def draw(
    objects: Windows,
    background: Windows,
    batches: int,
    per_batch: tuple[int, int],
    generator: np.random.Generator,
    class_balance: float = 0.0,
) -> Windows:
    """Windows for some batches, one batch after the other: objects first, then background.

    Drawn over the whole data set without putting back, as long as there are enough.

    Args:
        objects: all object windows.
        background: all background windows.
        batches: how many batches.
        per_batch: object and background windows in each.
        generator: of the choice.
        class_balance: objects of a class of n windows are drawn n^(1 - class_balance) times as
            often: 0 all windows alike, 1 all classes alike.

    Raises:
        UserError: there is nothing to draw from.
    """
    for table, what in ((objects, "object"), (background, "background")):
        if len(table) == 0:
            raise UserError(
                f"the training images give no {what} window to fine-tune on: look at the "
                "proposals' recall, and at model.stages.finetune.matcher"
            )
    # objects have a share of their own, for they are "extremely rare" among windows (R-CNN, 2.3)
    columns = []
    for table, count in zip((objects, background), per_batch, strict=True):
        if class_balance and table is objects:
            rows = draw_balanced(table.label, batches * count, class_balance, generator)
        else:
            rows = draw_rows(len(table), batches * count, generator)
        columns.append((table.take(rows), batches, count))
    shaped = [
        (w.image.reshape(b, n), w.box.reshape(b, n, 4), w.label.reshape(b, n))
        for w, b, n in columns
    ]
    image, box, label = (np.concatenate(parts, axis=1) for parts in zip(*shaped, strict=True))
    return Windows(image.reshape(-1), box.reshape(-1, 4), label.reshape(-1))


def draw_rows(available: int, wanted: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Row numbers, each used equally often (to within one)."""
    rounds = -(-wanted // available)
    rows = [generator.permutation(available) for _ in range(rounds)]
    return np.concatenate(rows)[:wanted].astype(np.int64)


def draw_balanced(
    labels: NDArray[np.int64], wanted: int, balance: float, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Row numbers, each as often as a power of its class's number of rows says; see `draw`.

    >>> labels = np.array([0] * 900 + [1])
    >>> rows = draw_balanced(labels, 1000, 1.0, np.random.default_rng(0))
    >>> bool(450 < (labels[rows] == 1).sum() < 550)
    True
    """
    weights = np.bincount(labels)[labels].astype(np.float64) ** -balance
    return generator.choice(len(labels), wanted, p=weights / weights.sum())


def window_loss(stage: Stage, logits: Tensor, labels: Tensor, images: str) -> Tensor:
    """Cross-entropy of a training batch, logged with its accuracy.

    Args:
        stage: that trains.
        logits: (R, C + 1), background last.
        labels: (R,).
        images: ids of the images that the windows are of.

    Raises:
        TrainingError: it is not a number.
    """
    loss = F.cross_entropy(logits, labels)
    stage.log(f"{stage.name}/loss", loss, prog_bar=True, batch_size=len(labels))
    accuracy = (logits.argmax(dim=1) == labels).float().mean()
    stage.log(f"{stage.name}/accuracy", accuracy, batch_size=len(labels))
    return stage.check_finite(loss, f"windows of images {images}")
