"""Localisation error as ILSVRC's CLS-LOC has it (eval_clsloc.m of the development kit of 2014)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from detection.boxes import box_iou
from detection.metrics.top_k import first_of_each
from detection.metrics.voc_map import own_ids

MIN_IOU = 0.5  # with any box of the label, from which on a box is right
STATES = ("image_ids", "labels", "guesses", "scores", "boxes", "ious", "true_boxes", "num_boxes")


class LocalizationError(Metric):
    """An image is right if one of its first guesses has the label, and IoU ≥ 0.5 with a box of it.

    Any box of the label will do. Images without a box (those on ILSVRC's blacklist) count for
    classification only, as in the development kit. Beside the error of all guesses it tells that
    of the first alone, and that on the true class, if predictions bring a box for it.

    Args:
        top_k: guesses that count.

    >>> metric = LocalizationError(top_k=2)
    >>> boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 4]])
    >>> guesses = {"labels": torch.tensor([3, 1]), "boxes": boxes}
    >>> target = {"label": torch.tensor(1), "boxes": torch.tensor([[0., 0, 10, 5]])}
    >>> metric.update([guesses], [target])
    >>> float(metric.compute()["error"]), float(metric.compute()["top1"])
    (0.0, 1.0)
    """

    full_state_update = False
    image_ids: list[Tensor]

    def __init__(self, top_k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.top_k = top_k
        for name in STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Take in some images.

        Args:
            preds: for each image `labels` (k,) int64 and `boxes` (k, 4) half-open xyxy, best first;
                k may be less than `top_k`, and what comes after it is not looked at. Perhaps
                `scores` (k,), and `true_box` (4,), a box for the true class.
            targets: for each image `label` (), and `boxes` (N, 4) of that label; N may be 0.
            image_ids: a number for each image, the same in every process; needed where processes
                may see the same image.
        """
        if not preds:
            return
        ids = own_ids(len(preds), self.image_ids) if image_ids is None else image_ids
        rows = [self._row(*pair) for pair in zip(preds, targets, strict=True)]
        columns = {name: torch.stack([row[name] for row in rows]) for name in STATES[1:]}
        device = columns["labels"].device
        for name, value in {"image_ids": torch.as_tensor(ids, device=device), **columns}.items():
            getattr(self, name).append(value)

    def _row(self, pred: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is kept of an image, all of the same shape: guesses that lack are of label -1."""
        boxes = pred["boxes"][: self.top_k].float()
        labels, count = pred["labels"][: self.top_k], len(boxes)
        gt = target["boxes"].to(boxes.device).float()
        true_box = pred.get("true_box", boxes.new_full((4,), torch.nan))
        looked_at = torch.cat([boxes, true_box.float()[None]])  # the last is of the true class
        ious = looked_at.new_zeros(count + 1)
        if len(gt):  # double: an IoU of exactly 0.5 is right
            ious = box_iou(looked_at.double(), gt.double()).amax(dim=1)
        size = (0, self.top_k - count)
        pad = torch.nn.functional.pad
        scores = pred.get("scores", boxes.new_zeros(count))[: self.top_k].float()
        return {
            "labels": target["label"].to(boxes.device),
            "guesses": pad(labels, size, value=-1),
            "scores": pad(scores, size),
            "boxes": pad(boxes, (0, 0, *size)),
            "ious": torch.cat([pad(ious[:count], size), ious[count:].nan_to_num(-1.0)]).double(),
            "true_boxes": true_box.float(),
            "num_boxes": torch.tensor(len(gt), device=boxes.device),
        }

    def compute(self) -> dict[str, Tensor]:
        """`error` of all guesses, `top1`, `true_class`, `classification`, `classification_top1`.

        All are shares: the first three of the images with boxes (NaN where there are none), the
        last two of all. `true_class` is NaN where predictions did not bring a box for it.
        """
        return self.summary(self.table())

    @staticmethod
    def summary(table: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The errors of a table."""
        counted = table["num_boxes"] > 0
        is_class = table["guesses"] == table["labels"][:, None]  # (I, k)
        is_right = is_class & (table["ious"][:, :-1] >= MIN_IOU)
        true_iou = table["ious"][counted, -1]
        true_class = 1 - (true_iou >= MIN_IOU).double().mean()
        return {
            "error": 1 - is_right[counted].any(dim=1).double().mean(),
            "top1": 1 - is_right[counted, 0].double().mean(),
            "true_class": torch.where((true_iou < 0).any(), torch.nan, true_class),
            "classification": 1 - is_class.any(dim=1).double().mean(),
            "classification_top1": 1 - is_class[:, 0].double().mean(),
        }

    def table(self) -> dict[str, Tensor]:
        """All that was kept, on the CPU, in the order of the images, each of them once.

        `ious` (I, k + 1) are the largest with any box of the label, whatever the guess's class; the
        last is that of the box for the true class, -1 where there is none.
        """
        kept = {}
        for name in STATES:
            value = getattr(self, name)
            kept[name] = (torch.cat(value) if isinstance(value, list) else value).cpu()
        first = first_of_each(kept["image_ids"])
        return {name: value[first] for name, value in kept.items()}
