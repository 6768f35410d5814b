"""Average precision as ILSVRC's detection challenge computes it (eval_detection.m, 2014)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detection.metrics.voc_ap import MatchedDetections, paired_iou, pairs
from detection.metrics.voc_map import VOCMeanAveragePrecision, joined

TOLERANCE_PX = 10  # a box may be off by this many pixels in all: small objects need less overlap


class ILSVRCDetectionMAP(VOCMeanAveragePrecision):
    """mAP by the rules of ILSVRC DET; the area under each class's envelope.

    An overlap is enough from min(0.5, wh / ((w + 10)(h + 10))) on, for an object of w × h pixels. A
    detection takes the object that it overlaps most among those that are not found yet, so a second
    one may still be right about a neighbour. Classes may be blacklisted in an image: nothing that
    is found or missed there counts. (`data=ilsvrc_det` leaves such images out altogether, as
    R-CNN's authors did.)

    Args:
        num_classes: C.
        max_per_class: see `VOCMeanAveragePrecision`.

    >>> small = torch.tensor([[0.0, 0.0, 10.0, 10.0]])  # 100 / 400: an IoU of 0.25 is enough
    >>> detections = {"boxes": small * 2, "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    >>> metric = ILSVRCDetectionMAP(num_classes=1)
    >>> metric.update([detections], [{"boxes": small, "labels": torch.zeros(1).long()}])
    >>> metric.compute()["map"].item()
    1.0
    """

    ignored: list[Tensor]

    def __init__(self, num_classes: int, max_per_class: int | None = None) -> None:
        super().__init__(num_classes, interpolation="area", max_per_class=max_per_class)
        self.add_state("ignored", default=[], dist_reduce_fx="cat")  # (J, 2) image, label

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Take in some images.

        Args:
            preds: see `VOCMeanAveragePrecision`.
            targets: see `VOCMeanAveragePrecision`; also, optionally, `ignored` (J,) labels that
                are blacklisted there.
            image_ids: see `VOCMeanAveragePrecision`.
        """
        super().update(preds, targets, image_ids)
        newest = self.images[len(self.images) - len(targets) :]
        for target, image in zip(targets, newest, strict=True):
            labels = target.get("ignored", torch.zeros(0, device=self.device)).double()
            number = image[:, 0].double().expand(len(labels))
            self.ignored.append(torch.stack([number, labels], dim=1))

    def counted(self) -> tuple[Tensor, Tensor]:
        """Without those of images and labels that are blacklisted."""
        ignored = joined(self.ignored, 2)
        detections, gt = (t[~is_ignored(t, ignored, self.num_classes)] for t in self.tables())
        return detections, gt

    def match(self, detections: Tensor, gt: Tensor) -> MatchedDetections:
        """DET's word on detections and ground truths; see `match_det`."""
        return match_det(detections, gt)


def is_ignored(table: Tensor, ignored: Tensor, num_classes: int) -> Tensor:
    """Which rows (image, label, ...) are of an image and label that are blacklisted."""
    keys = [t[:, 0] * num_classes + t[:, 1] for t in (table, ignored)]
    return torch.isin(*keys)


def least_overlap(boxes: Tensor) -> Tensor:
    """The IoU from which on each gt counts as detections, (T,); boxes (T, 4) half-open.

    >>> least_overlap(torch.tensor([[0.0, 0, 10, 10], [0, 0, 24, 24], [0, 0, 25, 25]]))
    tensor([0.2500, 0.4983, 0.5000])
    """
    side = boxes[:, 2:] - boxes[:, :2]
    return (side.prod(dim=1) / (side + TOLERANCE_PX).prod(dim=1)).clamp(max=0.5)


def match_det(detections: Tensor, gt: Tensor) -> MatchedDetections:
    """As `voc_ap.match_detections`, by the rules of DET.

    The best detections of all images and classes choose their objects together, then the second
    best, and so on: as many rounds as one image has detections of one class that may be right.

    Args:
        detections: (D, 7) double: image, label, score, xyxy.
        gt: (T, 7) double: image, label, ignored, xyxy.
    """
    order = torch.argsort(detections[:, 2], descending=True, stable=True)
    is_true_positive = torch.zeros(len(detections), dtype=torch.int8)
    detection, row = pairs(detections, gt)
    iou = paired_iou(detections[detection, 3:], gt[row, 3:])
    eligible = (iou > 0) & (iou >= least_overlap(gt[:, 3:])[row])
    detection, row, iou = detection[eligible], row[eligible], iou[eligible]
    turn = turns(detection, detections, order)
    gt_is_found = torch.zeros(len(gt), dtype=torch.bool)
    for rows in by_turn(turn):
        free = rows[~gt_is_found[row[rows]]]
        best = torch.full((len(detections),), -1.0, dtype=torch.double)
        best.scatter_reduce_(0, detection[free], iou[free], "amax")
        top = free[iou[free] == best[detection[free]]]
        choice = torch.full((len(detections),), len(gt), dtype=torch.long)
        choice.scatter_reduce_(0, detection[top], row[top], "amin")  # the first of equals
        right = (best >= 0).nonzero().flatten()
        gt_is_found[choice[right]] = True
        is_true_positive[right] = 1
    return MatchedDetections(order, is_true_positive, gt_is_found)


def turns(detection: Tensor, detections: Tensor, order: Tensor) -> Tensor:
    """For each pair, how many better detections of its image and class may be right too."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    who = detection.unique()
    who = who[torch.argsort(rank[who])]
    group = (
        (detections[who, 0] * (detections[:, 1].max() + 1) + detections[who, 1]).long()
        if len(who)
        else who
    )
    by_group = torch.argsort(group, stable=True)
    sizes = torch.unique_consecutive(group[by_group], return_counts=True)[1]
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    turn = torch.zeros(len(detections), dtype=torch.long)
    turn[who[by_group]] = torch.arange(len(who)) - starts
    return turn[detection]


def by_turn(turn: Tensor) -> list[Tensor]:
    """Rows of the first turn, of the second, and so on."""
    order = torch.argsort(turn, stable=True)
    sizes = torch.bincount(turn) if len(turn) else turn
    return list(order.split(sizes.tolist()))
