"""How many of the objects the proposals cover."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from detection.matching import Matcher


class WithProposals(Protocol):
    """Ground truth (boxes, labels, difficult) of each image, and proposals of those searched."""

    searched: list[int]

    def gt(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        """The objects of an image."""
        ...

    def proposals(self, index: int) -> Tensor:
        """The (P, 4) proposals of an image."""
        ...


@dataclass(frozen=True)
class ProposalRecall:
    """Share of the objects (difficult ones apart) that some proposal covers.

    Attributes:
        best_iou: (T,) IoU of each object with its best proposal.
        labels: (T,) class of each object.
        boxes_per_image: mean number of proposals.
    """

    best_iou: Tensor
    labels: Tensor
    boxes_per_image: float

    @classmethod
    def of(cls, dataset: WithProposals) -> "ProposalRecall":
        """Measured on all images that were searched."""
        best, classes, count = [torch.zeros(0)], [torch.zeros(0, dtype=torch.long)], 0
        for index in dataset.searched:
            boxes, labels, difficult = dataset.gt(index)
            proposals = dataset.proposals(index)
            count += len(proposals)
            best.append(Matcher()(boxes[~difficult], proposals).iou)
            classes.append(labels[~difficult])
        return cls(torch.cat(best), torch.cat(classes), count / max(1, len(dataset.searched)))

    def at(self, iou: float) -> float:
        """Recall at an overlap; NaN without objects."""
        return float((self.best_iou >= iou).float().mean())

    @property
    def mabo(self) -> float:
        """Mean average best overlap: the mean over the classes of their objects' mean best IoU.

        Uijlings et al. 2013, section 5; NaN without objects.
        """
        classes, which = self.labels.unique(return_inverse=True)
        total = torch.zeros(len(classes)).index_add(0, which, self.best_iou)
        return float((total / which.bincount(minlength=len(classes))).mean())

    def figures(self) -> dict[str, float]:
        """The figures of `metrics.json`."""
        return {
            "proposals/recall_0.5": self.at(0.5),
            "proposals/recall_0.7": self.at(0.7),
            "proposals/mabo": self.mabo,
            "proposals/boxes_per_image": self.boxes_per_image,
        }


def recall_report(name: str, recall: ProposalRecall) -> str:
    """One line for a person."""
    return (
        f"proposals of {name}: {recall.boxes_per_image:.0f} boxes an image, recall "
        f"{recall.at(0.5):.1%} at IoU 0.5, {recall.at(0.7):.1%} at IoU 0.7, mean average "
        f"best overlap {recall.mabo:.1%}"
    )
