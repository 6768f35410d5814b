"""Greedy non-maximum suppression for each class, and limits on what is kept."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from detection.errors import UserError

Detections = dict[str, Tensor]
"""`boxes` (N, 4) float32 half-open xyxy, `scores` (N,) float32, `labels` (N,) int64."""


class Combination(Protocol):
    """Many scored boxes of an image → few: NMS, OverFeat's accumulation, box voting, a union."""

    def __call__(self, candidates: Detections) -> Detections:
        """The detections that candidates come to, best first."""
        ...


def suppressing(combine: Combination) -> "NMS":
    """A combination that suppresses, which can say who survives.

    Raises:
        UserError: it is of another kind.
    """
    if not isinstance(combine, NMS):
        raise UserError("suppress_first needs combine=nms")
    return combine


def best_of_each_class(combine: Combination) -> Combination:
    """The same combination, which keeps of each class the best box, and of all classes one."""
    options: Any = combine  # dataclasses all
    limited: Combination = replace(options, max_per_class=1, max_per_image=None)
    return limited


@dataclass(frozen=True)
class NMS:
    """Suppression of the same object's other boxes, class by class.

    Attributes:
        max_iou: of two boxes of a class that overlap more, the one of lower score goes (R-CNN, 2.2:
            imdb_eval_voc.m; SPP-net, 4.1).
        max_per_class: detections kept of a class, after suppression (spp_test.m).
        max_per_image: detections kept in all; None: no limit.
    """

    max_iou: float = 0.3
    max_per_class: int = 100
    max_per_image: int | None = 300

    def __call__(self, candidates: Detections) -> Detections:
        """The candidates that stay, best first; (0, 4) boxes are normal."""
        kept = self.survivors(candidates)
        return {name: value[kept] for name, value in candidates.items()}

    def survivors(self, candidates: Detections) -> Tensor:
        """Rows (K,) of the candidates that stay, best first."""
        boxes, labels = candidates["boxes"].double(), candidates["labels"]
        # in float64, as the original: in float32 an overlap of just the limit is more than it, and
        # classes that are moved apart lose the pixels' fractions
        limit = kernel_limit(self.max_iou, boxes.device)
        kept = batched_nms(boxes, candidates["scores"].double(), labels, limit)  # best first
        return kept[rank_in_class(labels[kept]) < self.max_per_class][: self.max_per_image]


def kernel_limit(max_iou: float, device: torch.device) -> float:
    """A largest overlap as torchvision's suppression takes it on a device.

    On CUDA it is rounded to float32 (`nms_kernel.cu`); one that became smaller, such as 0.7, would
    take boxes that overlap by just the limit, which the originals and the CPU's leave.

    >>> kernel_limit(0.7, torch.device("cpu"))
    0.7
    >>> round(kernel_limit(0.7, torch.device("cuda")), 6), kernel_limit(0.5, torch.device("cuda"))
    (0.7, 0.5)
    """
    rounded = np.float32(max_iou)
    if device.type == "cpu" or rounded >= max_iou:
        return max_iou
    return float(np.nextafter(rounded, np.float32(2)))


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Candidates of several models, scales or places as one set; of none, none."""
    if not parts:
        return no_detections()
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def no_detections(device: torch.device | str = "cpu") -> Detections:
    """Of an image in which there is nothing."""
    return {
        "boxes": torch.zeros(0, 4, device=device),
        "scores": torch.zeros(0, device=device),
        "labels": torch.zeros(0, dtype=torch.long, device=device),
    }


def rank_in_class(labels: Tensor) -> Tensor:
    """Number of entries of the same label that stand before each, (K,).

    >>> rank_in_class(torch.tensor([3, 1, 3, 3, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = torch.argsort(labels, stable=True)
    ordered = labels[order]
    place = torch.arange(len(labels), device=labels.device)
    first = torch.searchsorted(ordered, ordered)
    rank = torch.empty_like(place)
    rank[order] = place - first
    return rank
