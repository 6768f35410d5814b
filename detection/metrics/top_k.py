"""Classification: errors, confusions, and which images were told wrong."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

TOP = 5


class TopKErrors(Metric):
    """Keeps the best guesses for every image; top-1 and top-5 error are made from them.

    Args:
        num_classes: K.
    """

    full_state_update = False
    rows: list[Tensor]
    labels: list[Tensor]
    guesses: list[Tensor]
    scores: list[Tensor]

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        for name in ("rows", "labels", "guesses", "scores"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Take in some images.

        Args:
            scores: (B, K).
            labels: (B,).
            rows: (B,) of the images in their index.
        """
        best = scores.float().topk(min(TOP, self.num_classes), dim=1)
        self.rows.append(rows)
        self.labels.append(labels)
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
        """All that was kept, on the CPU, in the order of rows, each of them once."""
        kept = {n: self.joined(n).cpu() for n in ("rows", "labels", "guesses", "scores")}
        first = first_of_each(kept["rows"])
        return {name: value[first] for name, value in kept.items()}

    def confusion(self, table: dict[str, Tensor]) -> Tensor:
        """(K, K) int64 of a table: images of class i that were told to be of class j."""
        pairs = table["labels"] * self.num_classes + table["guesses"][:, 0]
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)


def first_of_each(rows: Tensor) -> Tensor:
    """Places of the first of each number, in the order of the numbers.

    >>> first_of_each(torch.tensor([4, 2, 4, 3])).tolist()
    [1, 3, 0]
    """
    order = rows.argsort(stable=True)
    new = torch.ones(len(rows), dtype=torch.bool)
    new[1:] = rows[order[1:]] != rows[order[:-1]]
    return order[new]
