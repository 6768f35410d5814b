"""Linear SVMs with hard negatives (R-CNN, section 2.3; SPP-net, section 4.1)."""

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor
from torchvision.ops import box_iou, nms


@dataclass(frozen=True)
class SVMOptions:
    """How one SVM is trained: liblinear's options in the original code.

    Attributes:
        c: weight of the hinge loss.
        positive_weight: factor on c for positives.
        bias_multiplier: value of the constant feature whose weight is the bias; the bias is
            regularised, but the less the larger this is.
        tolerance: of the dual solver.
        max_iterations: of the dual solver.
    """

    c: float
    positive_weight: float
    bias_multiplier: float
    tolerance: float
    max_iterations: int


@dataclass(frozen=True)
class MiningRule:
    """Which boxes are negatives, and which of them are kept.

    Attributes:
        negative_max_iou: a box that overlaps every truth of a class less is its negative.
        duplicate_max_iou: of two new negatives that overlap more, one goes; 1 keeps all.
        hard_min_score: a negative that scores more is hard.
        evict_below_score: after training, a kept negative that scores less goes.
        retrain_after: new negatives of a class until it is trained again.
    """

    negative_max_iou: float
    duplicate_max_iou: float
    hard_min_score: float
    evict_below_score: float
    retrain_after: int


@dataclass
class ClassExamples:
    """Features of one class's examples, scaled, (n, D) float32 a block."""

    positives: list[Tensor] = field(default_factory=list)
    negatives: list[Tensor] = field(default_factory=list)
    new: int = 0

    def add_negatives(self, features: Tensor) -> None:
        """Keep some more."""
        if len(features):
            self.negatives.append(features)
            self.new += len(features)

    def evict(self, weight: Tensor, bias: Tensor, below: float) -> None:
        """Drop negatives that have become easy."""
        if self.negatives:
            every = torch.cat(self.negatives)
            self.negatives = [every[every @ weight + bias >= below]]
        self.new = 0


def hard_negatives(
    scores: Tensor,
    boxes: Tensor,
    truths: Tensor,
    labels: Tensor,
    rule: MiningRule,
    min_score: float,
) -> list[Tensor]:
    """For each class, which boxes of an image are hard negatives: C vectors of indices.

    Args:
        scores: (R, C) of the SVMs as they are.
        boxes: (R, 4).
        truths: (N, 4) of all classes.
        labels: (N,) of the truths.
        rule: see there.
        min_score: take boxes that score more; -inf takes all negatives.
    """
    overlap = class_overlaps(boxes, truths, labels, scores.shape[1])
    hard = (overlap < rule.negative_max_iou) & (scores > min_score)  # (R, C)
    chosen = []
    for label in hard.any(dim=0).nonzero().flatten().tolist():
        index = hard[:, label].nonzero().flatten()
        if rule.duplicate_max_iou < 1:
            index = index[nms(boxes[index], scores[index, label], rule.duplicate_max_iou)]
        chosen.append((label, index))
    found = dict(chosen)
    nothing = torch.zeros(0, dtype=torch.long, device=boxes.device)
    return [found.get(label, nothing) for label in range(scores.shape[1])]


def class_overlaps(boxes: Tensor, truths: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Largest IoU of each box with the truths of each class, (R, C); 0 where there are none.

    >>> box = torch.tensor([[0.0, 0, 2, 2]])
    >>> class_overlaps(box, box, torch.tensor([1]), 3).tolist()
    [[0.0, 1.0, 0.0]]
    """
    best = boxes.new_zeros(num_classes, len(boxes))
    if len(truths):
        row = labels[:, None].expand(-1, len(boxes))
        best.scatter_reduce_(0, row, box_iou(truths, boxes), "amax")
    return best.t()


def train_svm(
    positives: Tensor, negatives: Tensor, options: SVMOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """Weights (D,) and bias () of one SVM.

    A class without positives scores -inf everywhere: it is never detected.

    Args:
        positives: (P, D) float32.
        negatives: (N, D) float32; without any, every box is taken for the class.
        options: see there.
        seed: of the solver's order.
    """
    dimensions = positives.shape[1]
    if len(positives) == 0 or len(negatives) == 0:
        bias = -torch.inf if len(positives) == 0 else 0.0
        return torch.zeros(dimensions), torch.tensor(bias)
    solver = LinearSVC(
        C=options.c,
        loss="hinge",
        dual=True,
        class_weight={1: options.positive_weight},
        intercept_scaling=options.bias_multiplier,
        tol=options.tolerance,
        max_iter=options.max_iterations,
        random_state=seed,
    )
    features: NDArray[np.float64] = torch.cat([positives, negatives]).double().numpy()
    sign = np.repeat([1, -1], [len(positives), len(negatives)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as liblinear: the last iterate
        solver.fit(features, sign)
    return torch.from_numpy(solver.coef_[0]).float(), torch.tensor(float(solver.intercept_[0]))
