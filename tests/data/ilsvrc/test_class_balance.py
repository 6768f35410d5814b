"""Even halves of a data set."""

import numpy as np
import pytest

from detection.data.ilsvrc.class_balance import alike, assign, balanced_halves, imbalance


def some_counts(images=600, classes=15, seed=0):
    """Objects of rare and common classes, one to three in an image."""
    generator = np.random.default_rng(seed)
    share = 1.25 ** -np.arange(classes)
    counts = np.zeros((images, classes), np.int64)
    for row in counts:
        for _ in range(generator.integers(0, 4)):
            row[generator.choice(classes, p=share / share.sum())] += 1
    return counts


def test_far_more_even_than_a_coin():
    counts = some_counts()
    split = balanced_halves(counts, candidates=5, moves=500, seed=0)
    coins = [
        imbalance(np.random.default_rng(s).random(len(counts)) < 0.5, counts).max()
        for s in range(20)
    ]
    assert split.imbalance.max() < 0.5 * np.median(coins)
    least = (
        counts.sum(axis=0) % 2 / np.maximum(counts.sum(axis=0), 1)
    )  # an odd class cannot be halved
    assert (split.imbalance >= least - 1e-12).all()
    assert abs(2 * split.first.sum() - len(counts)) <= 2 + len(counts) // 50
    np.testing.assert_allclose(split.imbalance, imbalance(split.first, counts))


def test_deterministic_and_better_with_more_candidates():
    counts = some_counts(seed=1)
    one, again = (balanced_halves(counts, 3, 200, 7) for _ in range(2))
    assert np.array_equal(one.first, again.first)
    more = balanced_halves(counts, 12, 200, 7)
    assert more.imbalance.max() <= one.imbalance.max()


def test_pairs_are_alike():
    """With each content twice, every pair is of one content, and any deal is even."""
    counts = np.repeat(np.random.default_rng(0).permutation(np.eye(9, dtype=np.int64) * 3), 2, 0)
    pairs = alike(counts)
    assert (counts[pairs[:, 0]] == counts[pairs[:, 1]]).all()
    first = assign(pairs, len(counts), np.random.default_rng(0))
    assert imbalance(first, counts).max() == 0


def test_odd_and_empty():
    assert balanced_halves(np.ones((3, 1), np.int64), 1, 10, 0).first.sum() in (1, 2)
    assert balanced_halves(np.zeros((4, 2), np.int64), 1, 10, 0).imbalance.max() == 0
    with pytest.raises(ValueError, match="at least one candidate"):
        balanced_halves(np.zeros((4, 2), np.int64), 0, 10, 0)
