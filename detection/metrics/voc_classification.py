"""PASCAL VOC's classification task: AP of each class over all images (VOCevalcls.m)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from detection.metrics.top_k import first_of_each
from detection.metrics.voc_ap import Interpolation, PRCurve
from detection.metrics.voc_map import own_ids


class VOCClassificationAP(Metric):
    """Keeps scores and labels of all images.

    Args:
        num_classes: C.
        interpolation: "11point" (VOC 2007) or "area".
    """

    full_state_update = False
    image_ids: list[Tensor]
    scores: list[Tensor]
    labels: list[Tensor]

    def __init__(
        self, num_classes: int, interpolation: Interpolation = "11point", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.interpolation: Interpolation = interpolation
        for name in ("image_ids", "scores", "labels"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Take in some images.

        Args:
            preds: for each image `scores` (C,).
            targets: for each image `labels` (C,): 1 where the class is there, -1 where not, 0 where
                it is not counted.
            image_ids: a number for each image, the same in every process; needed where processes
                may see the same image.
        """
        scores = torch.stack([pred["scores"] for pred in preds]).float()
        ids = own_ids(len(preds), self.image_ids) if image_ids is None else image_ids
        self.image_ids.append(torch.as_tensor(ids, device=scores.device))
        self.scores.append(scores)
        self.labels.append(torch.stack([target["labels"] for target in targets]))

    def compute(self) -> dict[str, Tensor]:
        """`map`, the mean over the classes that have images (nan if none), and `ap` (C,)."""
        aps = [curve.average_precision(self.interpolation) for curve in self.curves()]
        ap = torch.tensor(aps, dtype=torch.double)
        return {"map": ap.nanmean(), "ap": ap}

    def curves(self) -> list[PRCurve]:
        """The precision-recall curve of each class; equal scores in the order of the images."""
        table = self.table()
        scores, labels = table["scores"].double(), table["labels"]
        return [curve_of(scores[:, n], labels[:, n]) for n in range(self.num_classes)]

    def table(self) -> dict[str, Tensor]:
        """`image_ids` (N,), `scores` and `labels` (N, C); each image once, in their order."""
        kept = {
            name: (torch.cat(v) if isinstance(v := getattr(self, name), list) else v).cpu()
            for name in ("image_ids", "scores", "labels")
        }
        order = first_of_each(kept["image_ids"])
        return {name: value[order] for name, value in kept.items()}


def curve_of(scores: Tensor, labels: Tensor) -> PRCurve:
    """The curve of one class from scores (N,) and labels (N,) of 1, 0 and -1."""
    counted = labels != 0
    scores, right = scores[counted], labels[counted] == 1
    order = scores.argsort(descending=True, stable=True)
    hits = right[order].double().cumsum(0)
    total = int(right.sum())
    count = torch.arange(1, len(hits) + 1, dtype=torch.double)
    return PRCurve(hits / count, hits / max(total, 1), scores[order], total)
