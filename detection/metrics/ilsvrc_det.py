"""Average precision as ILSVRC's detection challenge computes it (eval_detection.m, 2014)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detection.metrics.voc_ap import Judgement, PRCurve, curves_of, paired_iou, pairs
from detection.metrics.voc_map import VOCMeanAveragePrecision, joined

TOLERANCE_PX = 10  # a box may be off by so many pixels in all: small objects need less overlap


class ILSVRCDetectionMAP(VOCMeanAveragePrecision):
    """mAP by the rules of ILSVRC DET; the area under each class's envelope.

    An overlap is enough from min(0.5, wh / ((w + 10)(h + 10))) on, for a truth of w × h pixels. A
    detection takes the truth that it overlaps most among those that are not taken yet, so a second
    one may still be right about a neighbour. Classes may be blacklisted in an image: nothing that
    is found or missed there counts. (`data=ilsvrc_det` leaves such images out altogether, as
    R-CNN's authors did.)

    Args:
        num_classes: C.
        max_per_class: see `VOCMeanAveragePrecision`.

    >>> small = torch.tensor([[0.0, 0.0, 10.0, 10.0]])  # 100 / 400: an IoU of 0.25 is enough
    >>> found = {"boxes": small * 2, "scores": torch.ones(1), "labels": torch.zeros(1).long()}
    >>> metric = ILSVRCDetectionMAP(num_classes=1)
    >>> metric.update([found], [{"boxes": small, "labels": torch.zeros(1).long()}])
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
            targets: likewise; also, optionally, `ignored` (J,) labels that are blacklisted there.
            image_ids: likewise.
        """
        super().update(preds, targets, image_ids)
        newest = self.images[len(self.images) - len(targets) :]
        for target, image in zip(targets, newest, strict=True):
            labels = target.get("ignored", torch.zeros(0, device=self.device)).double()
            number = image[:, 0].double().expand(len(labels))
            self.ignored.append(torch.stack([number, labels], dim=1))

    def curves(self) -> list[PRCurve]:
        """The precision-recall curve of each class."""
        found, truth = self.tables()
        ignored = joined(self.ignored, 2)
        found, truth = (t[~is_ignored(t, ignored, self.num_classes)] for t in (found, truth))
        return curves_of(found, truth, self.num_classes, self.judge(found, truth))

    def judge(self, found: Tensor, truth: Tensor) -> Judgement:
        """DET's word on detections and truths; see `judge_det`."""
        return judge_det(found, truth)


def is_ignored(table: Tensor, ignored: Tensor, num_classes: int) -> Tensor:
    """Which rows (image, label, ...) are of an image and label that are blacklisted."""
    keys = [t[:, 0] * num_classes + t[:, 1] for t in (table, ignored)]
    return torch.isin(*keys)


def least_overlap(boxes: Tensor) -> Tensor:
    """The IoU from which on each truth counts as found, (T,); boxes (T, 4) half-open.

    >>> least_overlap(torch.tensor([[0.0, 0, 10, 10], [0, 0, 24, 24], [0, 0, 25, 25]]))
    tensor([0.2500, 0.4983, 0.5000])
    """
    side = boxes[:, 2:] - boxes[:, :2]
    return (side.prod(dim=1) / (side + TOLERANCE_PX).prod(dim=1)).clamp(max=0.5)


def judge_det(found: Tensor, truth: Tensor) -> Judgement:
    """What `voc_ap.judge` tells, by the rules of DET.

    The best detections of all images and classes choose their truths together, then the second
    best, and so on: as many rounds as one image has detections of one class that may be right.

    Args:
        found: (D, 7) double: image, label, score, xyxy.
        truth: (T, 7) double: image, label, ignored, xyxy.
    """
    order = torch.argsort(found[:, 2], descending=True, stable=True)
    verdict = torch.zeros(len(found), dtype=torch.int8)
    detection, row = pairs(found, truth)
    iou = paired_iou(found[detection, 3:], truth[row, 3:])
    eligible = (iou > 0) & (iou >= least_overlap(truth[:, 3:])[row])
    detection, row, iou = detection[eligible], row[eligible], iou[eligible]
    turn = turns(detection, found, order)
    taken = torch.zeros(len(truth), dtype=torch.bool)
    for rows in by_turn(turn):
        free = rows[~taken[row[rows]]]
        best = torch.full((len(found),), -1.0, dtype=torch.double)
        best.scatter_reduce_(0, detection[free], iou[free], "amax")
        top = free[iou[free] == best[detection[free]]]
        choice = torch.full((len(found),), len(truth), dtype=torch.long)
        choice.scatter_reduce_(0, detection[top], row[top], "amin")  # the first of equals
        right = (best >= 0).nonzero().flatten()
        taken[choice[right]] = True
        verdict[right] = 1
    return Judgement(order, verdict, taken)


def turns(detection: Tensor, found: Tensor, order: Tensor) -> Tensor:
    """For each pair, how many better detections of its image and class may be right too."""
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    who = detection.unique()
    who = who[torch.argsort(rank[who])]
    group = (found[who, 0] * (found[:, 1].max() + 1) + found[who, 1]).long() if len(who) else who
    by_group = torch.argsort(group, stable=True)
    sizes = torch.unique_consecutive(group[by_group], return_counts=True)[1]
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    turn = torch.zeros(len(found), dtype=torch.long)
    turn[who[by_group]] = torch.arange(len(who)) - starts
    return turn[detection]


def by_turn(turn: Tensor) -> list[Tensor]:
    """Rows of the first turn, of the second, and so on."""
    order = torch.argsort(turn, stable=True)
    sizes = torch.bincount(turn) if len(turn) else turn
    return list(order.split(sizes.tolist()))
