"""Greedy non-maximum suppression for each class, and limits on what is kept."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

Detections = dict[str, Tensor]  # boxes (K, 4), scores (K,), labels (K,); best first


@dataclass(frozen=True)
class Suppression:
    """How scored boxes become detections.

    Attributes:
        max_iou: of two boxes of a class that overlap more, the one of lower score goes.
        max_per_class: detections kept of a class, after suppression.
        max_per_image: detections kept in all; None: no limit.
    """

    max_iou: float
    max_per_class: int
    max_per_image: int | None

    def __call__(self, boxes: Tensor, scores: Tensor, min_score: float) -> Detections:
        """The detections of an image, best first.

        Args:
            boxes: (R, C, 4), a box for each region and class.
            scores: (R, C).
            min_score: pairs of region and class below it are not considered.
        """
        region, label = self.survivors(boxes, scores, min_score)
        score = scores[region, label].float()
        return {"boxes": boxes[region, label].float(), "scores": score, "labels": label}

    def survivors(self, boxes: Tensor, scores: Tensor, min_score: float) -> tuple[Tensor, Tensor]:
        """Regions and labels (K,) that become detections, best first; see `__call__`."""
        region, label = torch.nonzero(scores > min_score, as_tuple=True)
        chosen, score = boxes[region, label].float(), scores[region, label].float()
        kept = batched_nms(chosen, score, label, self.max_iou)  # best first
        kept = kept[rank_in_class(label[kept]) < self.max_per_class][: self.max_per_image]
        return region[kept], label[kept]


def rank_in_class(labels: Tensor) -> Tensor:
    """How many entries of the same label stand before each, (K,).

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
