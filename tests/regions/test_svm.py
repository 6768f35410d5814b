"""SVMs and the choice of their negatives."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from detection.regions.svm import (
    ClassExamples,
    MiningRule,
    SVMOptions,
    class_overlaps,
    hard_negatives,
    sparse,
    train_svm,
)

RULE = MiningRule(0.3, 1.0, -1.0001, -1.2, 2000)


def test_minimises_the_original_objective():
    """Half the squared norm (bias included, as (b / 10)²) plus C times weighted hinge losses."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)) + np.repeat([[0.7], [-0.7]], 30, axis=0)
    y = np.repeat([1, -1], 30)
    c, weight, multiplier = 0.05, 2.0, 10.0

    def objective(v):
        hinge = np.maximum(0, 1 - y * (x @ v[:3] + v[3]))
        return (
            (v[:3] ** 2).sum() / 2
            + (v[3] / multiplier) ** 2 / 2
            + c * (np.where(y > 0, weight, 1) * hinge).sum()
        )

    options = SVMOptions(c, weight, multiplier, 1e-6, 100_000)
    tensor = torch.from_numpy(x).float()
    w, b = train_svm(sparse(tensor.split(25), 3), 30, options, seed=0)
    got = objective(np.array([*w.tolist(), float(b)]))
    starts = [np.zeros(4), np.array([*w.tolist(), float(b)])]
    best = min(
        minimize(
            objective, s, method="Nelder-Mead", options={"maxiter": 20_000, "fatol": 1e-10}
        ).fun
        for s in starts
    )
    assert got == pytest.approx(best, rel=1e-3)


def test_class_without_positives_is_never_detected():
    features = sparse([torch.randn(5, 4)], 4)
    w, b = train_svm(features, 0, SVMOptions(1, 1, 1, 0.1, 10), 0)
    assert (torch.randn(3, 4) @ w + b == -torch.inf).all()


def test_negatives_are_hard_far_from_their_class_and_of_any_other():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 4], [0, 0, 10, 2], [50, 50, 60, 60]])
    truths, labels = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1])
    scores = torch.tensor([[0.0, 0], [0, 0], [0, -3], [-2, 5]])
    chosen = hard_negatives(scores, boxes, truths, labels, RULE, -1.0001)
    assert chosen[0].tolist() == [0, 1, 2]  # another class's truth is a negative; one is easy
    assert chosen[1].tolist() == [3]  # IoU 1 and 0.4 are no negatives; 0.2 is, but easy


def test_a_threshold_of_nothing_leaves_what_touches_no_object():
    """R-CNN, 2.3, tried 0: boxes that overlap an object at all are no negatives then."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [9, 9, 19, 19], [10, 10, 20, 20], [50, 50, 60, 60]])
    rule = MiningRule(0.0, 1.0, -1.0001, -1.2, 2000)
    truths, labels = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([0])
    chosen = hard_negatives(torch.zeros(4, 1), boxes, truths, labels, rule, -1.0001)
    assert chosen[0].tolist() == [2, 3]


def test_near_duplicates_go():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]])
    rule = MiningRule(0.3, 0.7, -1.0001, -1.2, 2000)
    scores = torch.tensor([[0.1], [0.2], [0.0]])
    chosen = hard_negatives(scores, boxes, torch.zeros(0, 4), torch.zeros(0).long(), rule, -1.0)
    assert sorted(chosen[0].tolist()) == [1, 2]


def test_overlaps_are_the_best_of_each_class():
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]])
    truths = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [5, 0, 15, 10]])
    got = class_overlaps(boxes, truths, torch.tensor([0, 0, 2]), 3)
    third = 1 / 3
    torch.testing.assert_close(got, torch.tensor([[1.0, 0, third], [third, 0, 1]]))
    assert class_overlaps(boxes, torch.zeros(0, 4), torch.zeros(0).long(), 2).sum() == 0


def test_evicted_negatives_go():
    examples = ClassExamples(positives=np.array([7]))
    examples.add_negatives(np.array([3, 1]))
    examples.add_negatives(np.array([5]))
    assert examples.new == 3
    examples.evict(np.array([False, True, True]))
    assert (examples.positives.tolist(), examples.negatives.tolist()) == ([7], [1, 5])
    assert examples.new == 0


def test_sparse_rows_are_the_rows():
    dense = torch.randn(11, 6).relu()
    dense[4] = 0
    got = sparse([*dense.half().split(3), torch.zeros(0, 6)], 6)
    assert np.array_equal(got.toarray(), dense.half().double().numpy())
    assert sparse([], 6).shape == (0, 6)
