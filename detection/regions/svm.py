"""Linear SVMs with hard negatives (R-CNN, section 2.3; SPP-net, section 4.1)."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC
from torch import Tensor
from torchvision.ops import box_iou, nms

from detection.combine.nms import kernel_limit
from detection.regions.row_files import Ids


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

    c: float = 1e-3
    positive_weight: float = 2.0
    bias_multiplier: float = 10.0
    tolerance: float = 0.1
    max_iterations: int = 1000


@dataclass(frozen=True)
class MiningRule:
    """Which boxes are negatives, and which of them are kept.

    Attributes:
        negative_max_iou: a box that overlaps every object of a class less is its negative
            (SPP-net, 4.1).
        duplicate_max_iou: of two new negatives that overlap more, one goes (SPP-net, 4.1);
            1 keeps all, as the original code and R-CNN.
        hard_min_score: a negative that scores more is hard (rcnn_train.m).
        evict_below_score: after training, a kept negative that scores less goes (rcnn_train.m).
        retrain_after: new negatives of a class until it is trained again (rcnn_train.m).
    """

    negative_max_iou: float = 0.3
    duplicate_max_iou: float = 0.7
    hard_min_score: float = -1.0001
    evict_below_score: float = -1.2
    retrain_after: int = 2000


def no_ids() -> Ids:
    """An empty array of ids."""
    return np.zeros(0, np.int64)


@dataclass
class ClassExamples:
    """Examples of one class, by the ids of their features (see `RowFiles`).

    Attributes:
        positives: ids.
        negatives: ids.
        new: negatives since the class was last trained.
    """

    positives: Ids = field(default_factory=no_ids)
    negatives: Ids = field(default_factory=no_ids)
    new: int = 0

    def add_negatives(self, ids: Ids) -> None:
        """Keep some more."""
        self.negatives = np.concatenate([self.negatives, ids])
        self.new += len(ids)

    def evict(self, keep: NDArray[np.bool_]) -> None:
        """Drop the negatives that have become easy."""
        self.negatives = self.negatives[keep]
        self.new = 0


def hard_negatives(
    scores: Tensor,
    boxes: Tensor,
    gt_boxes: Tensor,
    labels: Tensor,
    rule: MiningRule,
    min_score: float,
) -> list[Tensor]:
    """For each class, which boxes of an image are hard negatives: C vectors of indices.

    Args:
        scores: (R, C) of the SVMs as they are.
        boxes: (R, 4).
        gt_boxes: (N, 4) of all classes.
        labels: (N,) of the ground truth.
        rule: what counts as a hard negative.
        min_score: take boxes that score more; -inf takes all negatives.
    """
    overlap = class_overlaps(boxes, gt_boxes, labels, scores.shape[1])
    # a box half on a dog is a hard negative for cats, and nothing for dogs: each class for itself
    # at a threshold of 0 what touches no object is left (R-CNN, 2.3)
    is_negative = (overlap < rule.negative_max_iou) | (overlap == 0)
    hard = is_negative & (scores > min_score)  # (R, C)
    chosen = []
    limit = kernel_limit(rule.duplicate_max_iou, boxes.device)
    # only classes with a hard negative here: after the first round most images have none
    for label in hard.any(dim=0).nonzero().flatten().tolist():
        index = hard[:, label].nonzero().flatten()
        if rule.duplicate_max_iou < 1:
            index = index[nms(boxes[index].double(), scores[index, label].double(), limit)]
        chosen.append((label, index))
    found = dict(chosen)
    nothing = torch.zeros(0, dtype=torch.long, device=boxes.device)
    return [found.get(label, nothing) for label in range(scores.shape[1])]


def class_overlaps(boxes: Tensor, gt_boxes: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Largest IoU of each box with the objects of each class, (R, C); 0 where there are none.

    >>> box = torch.tensor([[0.0, 0, 2, 2]])
    >>> class_overlaps(box, box, torch.tensor([1]), 3).tolist()
    [[0.0, 1.0, 0.0]]
    """
    best = boxes.new_zeros(num_classes, len(boxes))
    if len(gt_boxes):
        row = labels[:, None].expand(-1, len(boxes))
        best.scatter_reduce_(0, row, box_iou(gt_boxes, boxes), "amax")
    return best.t()


def train_svm(
    features: csr_matrix, num_positives: int, options: SVMOptions, seed: int
) -> tuple[Tensor, Tensor]:
    """Weights (D,) and bias () of one SVM.

    A class without positives scores -inf everywhere: it is never detected.

    Args:
        features: (n, D) positives, then negatives; without any negative, every box is taken for
            the class. Sparse, for most of what ReLU gives is zero.
        num_positives: how many come first.
        options: of the solver.
        seed: of the solver's order.
    """
    count, dimensions = features.shape
    if num_positives in (0, count):
        bias = -torch.inf if num_positives == 0 else 0.0
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
    sign = np.repeat([1, -1], [num_positives, count - num_positives])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as liblinear: the last iterate
        solver.fit(features, sign)
    return torch.from_numpy(solver.coef_[0]).float(), torch.tensor(float(solver.intercept_[0]))


def sparse(blocks: Iterable[Tensor], dimensions: int) -> csr_matrix:
    """Blocks of (n', D) rows as one sparse float64 matrix, made without a dense one."""
    data, columns, counts = [np.zeros(0)], [np.zeros(0, np.int32)], [np.zeros(1, np.int64)]
    for block in blocks:
        rows = block.float().numpy()
        place = rows.nonzero()
        data.append(rows[place].astype(np.float64))
        columns.append(place[1].astype(np.int32))
        counts.append(np.bincount(place[0], minlength=len(rows)))
    starts = np.cumsum(np.concatenate(counts))
    shape = (len(starts) - 1, dimensions)
    return csr_matrix((np.concatenate(data), np.concatenate(columns), starts), shape)
