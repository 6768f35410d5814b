"""PASCAL VOC's classification task: AP of each class over all images (VOCevalcls.m)."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from detection.metrics.top_k import first_of_each
from detection.metrics.voc_ap import Interpolation, PRCurve


class VOCClassificationAP(Metric):
    """Keeps scores and labels of all images.

    Args:
        num_classes: C.
        interpolation: "11point" (VOC 2007) or "area".
    """

    full_state_update = False
    rows: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self, num_classes: int, interpolation: Interpolation = "11point", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.interpolation: Interpolation = interpolation
        for name in ("rows", "scores", "labels"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Take in some images.

        Args:
            scores: (B, C).
            labels: (B, C): 1 where the class is there, -1 where not, 0 where it is not counted.
            rows: (B,) of the images in their index.
        """
        self.rows.append(rows)
        self.scores.append(scores.float())
        self.labels.append(labels)

    def compute(self) -> dict[str, Tensor]:
        """`map`, the mean over the classes that have images (nan if none), and `ap` (C,)."""
        aps = [curve.average_precision(self.interpolation) for curve in self.curves()]
        ap = torch.tensor(aps, dtype=torch.double)
        return {"map": ap.nanmean(), "ap": ap}

    def curves(self) -> list[PRCurve]:
        """The precision-recall curve of each class; equal scores in the order of the images."""
        rows, scores, labels = (
            torch.cat(v) if isinstance(v := getattr(self, name), list) else v
            for name in ("rows", "scores", "labels")
        )
        order = first_of_each(rows.cpu())
        scores, labels = scores.cpu()[order].double(), labels.cpu()[order]
        return [curve_of(scores[:, n], labels[:, n]) for n in range(self.num_classes)]


def curve_of(scores: Tensor, labels: Tensor) -> PRCurve:
    """The curve of one class from scores (N,) and labels (N,) of 1, 0 and -1."""
    counted = labels != 0
    scores, right = scores[counted], labels[counted] == 1
    order = scores.argsort(descending=True, stable=True)
    hits = right[order].double().cumsum(0)
    total = int(right.sum())
    count = torch.arange(1, len(hits) + 1, dtype=torch.double)
    return PRCurve(hits / count, hits / max(total, 1), scores[order], total)
