"""PASCAL VOC's mean average precision as a torchmetrics metric."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from detection.metrics.voc_ap import (
    Interpolation,
    MatchedDetections,
    PRCurve,
    curves_of,
    match_detections,
)
from detection.runtime.distributed import rank, world_size

PRUNE_AFTER = 256  # images, between two looks at what may be dropped


class VOCMeanAveragePrecision(Metric):
    """mAP by the rules of VOC's development kit; see `match_detections`.

    Its state is two tables, a row a detection and a row a gt, so that processes may hold
    different numbers of images. Images that come twice count once.

    Args:
        num_classes: C.
        iou_threshold: an overlap of exactly this is a hit.
        interpolation: "11point" as in 2007, or "area" as since 2010.
        max_per_class: the best N detections of a class in all images count; None: all.

    >>> box = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    >>> metric = VOCMeanAveragePrecision(num_classes=1)
    >>> metric.update(
    ...     [{"boxes": box, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}],
    ...     [{"boxes": box, "labels": torch.tensor([0])}],
    ... )
    >>> metric.compute()["map"].item()
    1.0
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    detections: list[Tensor]
    gt: list[Tensor]
    images: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        iou_threshold: float = 0.5,
        interpolation: Interpolation = "area",
        max_per_class: int | None = None,
    ) -> None:
        super().__init__(compute_with_cache=False)
        if interpolation not in ("11point", "area"):
            raise ValueError(f'interpolation is "11point" or "area", not {interpolation!r}')
        self.num_classes = num_classes
        self.iou_threshold = iou_threshold
        self.interpolation: Interpolation = interpolation
        self.max_per_class = max_per_class
        self.add_state(
            "detections", default=[], dist_reduce_fx="cat"
        )  # (D, 7) image, label, score, box
        self.add_state("gt", default=[], dist_reduce_fx="cat")  # (T, 7) ... difficult, box
        self.add_state(
            "images", default=[], dist_reduce_fx="cat"
        )  # (I, 3) image, rows in detections, in gt

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Take in some images.

        Args:
            preds: for each image `boxes` (K, 4) half-open xyxy, `scores` (K,), `labels` (K,).
            targets: for each image `boxes` (N, 4), `labels` (N,) and, optionally, `difficult` (N,)
                bool.
            image_ids: a number for each image, the same in every process; needed where processes
                may see the same image.

        Raises:
            ValueError: the lists differ in length, or a label is outside [0, C).
        """
        if image_ids is None:
            image_ids = own_ids(len(preds), self.images)
        if not len(preds) == len(targets) == len(image_ids):
            raise ValueError(f"{len(preds)} predictions, {len(targets)} targets")
        if self.max_per_class is not None and len(self.images) >= PRUNE_AFTER:
            self.prune(self.max_per_class)
        for pred, target, image in zip(preds, targets, image_ids, strict=True):
            difficult = target.get("difficult", torch.zeros_like(target["labels"]))
            self.detections.append(rows(image, pred["labels"], pred["scores"], pred["boxes"]))
            self.gt.append(rows(image, target["labels"], difficult, target["boxes"]))
            for table in (self.detections[-1], self.gt[-1]):
                if (
                    len(table)
                    and not 0 <= table[:, 1].min() <= table[:, 1].max() < self.num_classes
                ):
                    raise ValueError(
                        f"image {image}: a label is outside 0 to {self.num_classes - 1}"
                    )
            sizes = [image, len(self.detections[-1]), len(self.gt[-1])]
            self.images.append(torch.tensor([sizes], device=self.device))

    def prune(self, most: int) -> None:
        """Drop what will not be among the best of its class, to save memory."""
        detections, images = torch.cat(self.detections), torch.cat(self.images)
        kept = best_of_each_class(detections, most)
        image = torch.arange(len(images), device=images.device).repeat_interleave(images[:, 1])
        images[:, 1] = torch.bincount(image[kept], minlength=len(images))
        self.detections, self.images = [detections[kept]], [images]

    def compute(self) -> dict[str, Tensor]:
        """`map`, the mean over the classes that have ground truths (nan if none), and `ap` (C,)."""
        return self.summary(self.curves(), self.interpolation)

    def curves(self) -> list[PRCurve]:
        """The precision-recall curve of each class."""
        detections, gt = self.counted()
        return curves_of(detections, gt, self.num_classes, self.match(detections, gt))

    def counted(self) -> tuple[Tensor, Tensor]:
        """Those of `tables` that the protocol looks at; here, all."""
        return self.tables()

    def match(self, detections: Tensor, gt: Tensor) -> MatchedDetections:
        """What the protocol says of detections (D, 7) and ground truths (T, 7).

        See `match_detections`.
        """
        return match_detections(detections, gt, self.iou_threshold)

    @staticmethod
    def summary(curves: Sequence[PRCurve], interpolation: Interpolation) -> dict[str, Tensor]:
        """`map` and `ap` of some curves, under either interpolation."""
        ap = torch.tensor([c.average_precision(interpolation) for c in curves], dtype=torch.double)
        return {"map": ap.nanmean(), "ap": ap}

    def tables(self) -> tuple[Tensor, Tensor]:
        """All detections (D, 7) and ground truths (T, 7), on the CPU, in the order of the images.

        The order is the same however the images were spread over processes.
        """
        images = joined(self.images, 3).long()
        detections = in_image_order(joined(self.detections, 7), images[:, 0], images[:, 1])
        if self.max_per_class is not None:
            detections = detections[best_of_each_class(detections, self.max_per_class)]
        return detections, in_image_order(joined(self.gt, 7), images[:, 0], images[:, 2])


def rows(image: int, labels: Tensor, values: Tensor, boxes: Tensor) -> Tensor:
    """(N, 7) double: image, label, value, box."""
    columns = [torch.full_like(labels, image), labels, values]
    left = torch.stack([c.double() for c in columns], dim=1)
    return torch.cat([left, boxes.double().reshape(-1, 4)], dim=1).detach()


def joined(table: list[Tensor] | Tensor, columns: int) -> Tensor:
    """A state as one double table on the CPU: a list of blocks, or one block after gathering."""
    blocks = table if isinstance(table, list) else [table]
    return torch.cat([torch.zeros(0, columns), *(block.cpu() for block in blocks)]).double()


def in_image_order(table: Tensor, images: Tensor, counts: Tensor) -> Tensor:
    """A table sorted by image, rows of an image in their given order, without repeats.

    Args:
        table: rows of image after image, as they were taken in.
        images: (I,) the images in that order; of one that comes again, the first block counts.
        counts: (I,) rows of each.
    """
    order = torch.argsort(images, stable=True)
    repeated = torch.zeros(len(images), dtype=torch.bool)
    repeated[order[1:]] = images[order[1:]] == images[order[:-1]]
    kept = table[~repeated.repeat_interleave(counts)]
    return kept[torch.argsort(kept[:, 0], stable=True)]


def best_of_each_class(table: Tensor, most: int) -> Tensor:
    """Which rows (D,) are among the best N of their class; the first of equals.

    >>> table = torch.tensor([[0.0, 0, 0.5], [0, 0, 0.9], [1, 1, 0.1], [1, 0, 0.7]])
    >>> best_of_each_class(table, 2).tolist()
    [False, True, True, True]
    """
    order = torch.argsort(table[:, 2], descending=True, stable=True)
    order = order[torch.argsort(table[order, 1], stable=True)]
    sizes = torch.bincount(table[:, 1].long())
    starts = (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    kept = torch.zeros(len(table), dtype=torch.bool, device=table.device)
    kept[order] = torch.arange(len(table), device=table.device) - starts < most
    return kept


def own_ids(count: int, seen: Sequence[Tensor]) -> list[int]:
    """Numbers for some more images, which no other process gives; for images that come only once.

    Args:
        count: of the images.
        seen: tables with a row for each image before them.
    """
    start = sum(len(table) for table in seen)
    return [(start + i) * world_size() + rank() for i in range(count)]
