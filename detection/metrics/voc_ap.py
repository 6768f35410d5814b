"""Average precision as PASCAL VOC's development kit computes it (VOCevaldet.m)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Interpolation = Literal["11point", "area"]

# 0:0.1:1 in floating point, where 0.3 is 0.30000000000000004: a recall of exactly 0.3 misses it
RECALL_POINTS = torch.arange(11, dtype=torch.double) * 0.1


@dataclass(frozen=True)
class PRCurve:
    """Precision and recall of one class, one point a detection, best first.

    Attributes:
        precision: (K,) double.
        recall: (K,) double.
        scores: (K,) double; hits on difficult ground truths are left out.
        num_gt: ground truths that are not difficult.
    """

    precision: Tensor
    recall: Tensor
    scores: Tensor
    num_gt: int

    def average_precision(self, interpolation: Interpolation) -> float:
        """AP; nan where the class has no gt.

        Args:
            interpolation: "11point" as in 2007, or the "area" under the envelope, as since 2010.
        """
        if self.num_gt == 0:
            return float("nan")
        if interpolation == "11point":
            reached = self.recall[None] >= RECALL_POINTS[:, None]  # (11, K)
            best = torch.where(reached, self.precision, 0.0)
            return float(best.amax(dim=1).mean()) if best.numel() else 0.0
        zero, one = self.recall.new_zeros(1), self.recall.new_ones(1)
        recall = torch.cat([zero, self.recall, one])
        precision = torch.cat([zero, self.precision, zero])
        envelope = precision.flip(0).cummax(dim=0).values.flip(0)
        return float((recall.diff() * envelope[1:]).sum())


class MatchedDetections(NamedTuple):
    """What a protocol says of detections and ground truths.

    Attributes:
        order: (D,) int64, the detections by falling score, equal scores in their given order.
        is_true_positive: (D,) int8, in the given order: 1 a hit, 0 a false alarm, -1 not counted.
        gt_is_found: (T,) bool, ground truths that were hit.
    """

    order: Tensor
    is_true_positive: Tensor
    gt_is_found: Tensor


def match_detections(detections: Tensor, gt: Tensor, iou_threshold: float) -> MatchedDetections:
    """What each detection is; a hit on a difficult gt is not counted.

    A detection is held against the gt of its image and class that it overlaps most (the first
    of equals), difficult and already hit ones included. The first to hit a gt, by score, is
    right; later ones are false.

    Args:
        detections: (D, 7) double: image, label, score, xyxy.
        gt: (T, 7) double: image, label, difficult, xyxy.
        iou_threshold: an overlap of exactly this is a hit.
    """
    order = torch.argsort(detections[:, 2], descending=True, stable=True)
    overlap, match = best_gt(detections, gt)
    is_true_positive = torch.zeros(len(detections), dtype=torch.int8)
    enough = overlap >= iou_threshold
    difficult = torch.zeros_like(enough)
    difficult[enough] = gt[match[enough], 2] > 0
    is_true_positive[enough & difficult] = -1
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    fair = enough & ~difficult
    first = torch.full((len(gt),), len(detections), dtype=torch.long)
    first.scatter_reduce_(0, match[fair], rank[fair], "amin")
    hits = fair.nonzero().flatten()
    is_true_positive[hits[rank[hits] == first[match[hits]]]] = 1
    return MatchedDetections(order, is_true_positive, first < len(detections))


def best_gt(detections: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Largest IoU of each detection with a gt of its image and class, and that gt's row.

    Detections without such a gt get -1 and row 0.
    """
    detection, row = pairs(detections, gt)
    iou = paired_iou(detections[detection, 3:], gt[row, 3:])
    best = torch.full((len(detections),), -1.0, dtype=torch.double)
    best.scatter_reduce_(0, detection, iou, "amax")
    match = torch.full((len(detections),), len(gt), dtype=torch.long)
    top = iou == best[detection]
    match.scatter_reduce_(0, detection[top], row[top], "amin")  # the first of equals
    return best, match.masked_fill(best < 0, 0)


def pairs(detections: Tensor, gt: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all detections and ground truths of the same image and class: two vectors (P,).

    They are laid out flat, detection after detection, so that nothing loops and nothing is padded.
    """
    num_labels = 1 + int(max(rows[:, 1].max() if len(rows) else 0 for rows in (detections, gt)))
    gt_key, by_key = (gt[:, 0] * num_labels + gt[:, 1]).sort(stable=True)
    detection_key = detections[:, 0] * num_labels + detections[:, 1]
    start = torch.searchsorted(gt_key, detection_key)
    count = torch.searchsorted(gt_key, detection_key, right=True) - start
    detection = torch.arange(len(detections)).repeat_interleave(count)
    ends = count.cumsum(0)
    within = torch.arange(len(detection)) - (ends - count)[detection]
    return detection, by_key[start[detection] + within]


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of row with row, (P,) double; half-open boxes."""
    side = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0)
    inter = side.prod(dim=1)
    union = (a[:, 2:] - a[:, :2]).prod(dim=1) + (b[:, 2:] - b[:, :2]).prod(dim=1) - inter
    return torch.where(union > 0, inter / union, 0.0)


def curves_of(
    detections: Tensor, gt: Tensor, num_classes: int, matched: MatchedDetections
) -> list[PRCurve]:
    """The curve of each class, by `match_detections` or another protocol."""
    order = matched.order[matched.is_true_positive[matched.order] >= 0]
    labels, scores = detections[order, 1], detections[order, 2]
    hit = matched.is_true_positive[order] == 1
    curves = []
    for label in range(num_classes):
        mine = labels == label
        right = hit[mine].double().cumsum(0)
        count = torch.arange(1, len(right) + 1, dtype=torch.double)
        total = int(((gt[:, 1] == label) & (gt[:, 2] == 0)).sum())
        recall = right / max(total, 1)
        curves.append(PRCurve(right / count, recall, scores[mine], total))
    return curves
