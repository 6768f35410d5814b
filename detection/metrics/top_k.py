"""Classification: errors, confusions, and which images were classified wrongly."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from detection.metrics.voc_map import own_ids

TOP = 5


class TopKErrors(Metric):
    """Keeps the best guesses for every image; top-1 and top-5 error are made from them.

    Args:
        num_classes: C.
    """

    full_state_update = False
    image_ids: list[Tensor]
    labels: list[Tensor]
    guesses: list[Tensor]
    scores: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name in ("image_ids", "labels", "guesses", "scores"):
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
            targets: for each image `label` ().
            image_ids: a number for each image, the same in every process; needed where processes
                may see the same image.
        """
        scores = torch.stack([pred["scores"] for pred in preds]).float()
        best = scores.topk(min(TOP, self.num_classes), dim=1)
        ids = own_ids(len(preds), self.image_ids) if image_ids is None else image_ids
        self.image_ids.append(torch.as_tensor(ids, device=scores.device))
        self.labels.append(torch.stack([target["label"] for target in targets]))
        self.guesses.append(best.indices)
        self.scores.append(best.values)

    def compute(self) -> dict[str, Tensor]:
        """`top1_error`, `top5_error`: shares of the images (top 5 of all classes if fewer)."""
        return self.summary(self.table())

    @staticmethod
    def summary(table: dict[str, Tensor]) -> dict[str, Tensor]:
        """The errors of a table."""
        right = table["guesses"] == table["labels"][:, None]
        return {
            "top1_error": 1 - right[:, 0].double().mean(),
            "top5_error": 1 - right.any(dim=1).double().mean(),
        }

    def joined(self, name: str) -> Tensor:
        """A state as one tensor, whether or not it was gathered from several processes."""
        value = getattr(self, name)
        return torch.cat(value) if isinstance(value, list) else value

    def table(self) -> dict[str, Tensor]:
        """All that was kept, on the CPU, in the order of the images, each of them once."""
        kept = {n: self.joined(n).cpu() for n in ("image_ids", "labels", "guesses", "scores")}
        first = first_of_each(kept["image_ids"])
        return {name: value[first] for name, value in kept.items()}

    def confusion(self, table: dict[str, Tensor]) -> Tensor:
        """(C, C) int64 of a table: images of class i that were taken for class j."""
        pairs = table["labels"] * self.num_classes + table["guesses"][:, 0]
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)


def first_of_each(rows: Tensor) -> Tensor:
    """Positions of the first of each number, in the order of the numbers.

    >>> first_of_each(torch.tensor([4, 2, 4, 3])).tolist()
    [1, 3, 0]
    """
    order = rows.argsort(stable=True)
    new = torch.ones(len(rows), dtype=torch.bool)
    new[1:] = rows[order[1:]] != rows[order[:-1]]
    return order[new]
