"""Two halves of a data set in which every class is spread as evenly as can be.

The way of ILSVRC's val into val1 and val2 (R-CNN, section 4.1): images with like contents are
paired and assigned to either half, single images are moved for as long as that helps, and the best
of many such splits is taken.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POWER = 8  # of the imbalances in the sum that is made smaller: the worst classes rule it

Counts = NDArray[np.int64]
SplitMask = NDArray[np.bool_]


@dataclass(frozen=True)
class Split:
    """A split and how even it is.

    Attributes:
        first: (I,) which images are in the first half.
        imbalance: (C,) |a - b| / (a + b) of the objects of each class; 0 where there are none.
    """

    first: SplitMask
    imbalance: NDArray[np.float64]


def balanced_halves(counts: Counts, candidates: int, moves: int, seed: int) -> Split:
    """The split with the smallest largest imbalance among some candidates. Deterministic.

    Args:
        counts: (I, C) objects of each class in each image.
        candidates: splits to search from.
        moves: at most this many images are moved in each.
        seed: of the pairs' order and of who goes where.
    """
    pairs = alike(counts)
    best: Split | None = None
    for number in range(candidates):
        first = assign(pairs, len(counts), np.random.default_rng([seed, number]))
        improve(first, counts, moves)
        split = Split(first, imbalance(first, counts))
        if best is None or split.imbalance.max(initial=0) < best.imbalance.max(initial=0):
            best = split
    if best is None:
        raise ValueError("balanced_halves needs at least one candidate")
    return best


def imbalance(first: SplitMask, counts: Counts) -> NDArray[np.float64]:
    """|a - b| / (a + b) of each class (R-CNN, footnote 2).

    >>> imbalance(np.array([True, False]), np.array([[2, 0], [1, 3]])).round(3).tolist()
    [0.333, 1.0]
    """
    total = counts.sum(axis=0)
    difference = 2 * counts[first].sum(axis=0) - total
    return np.abs(difference) / np.maximum(total, 1)


def alike(counts: Counts) -> NDArray[np.int64]:
    """Pairs (I // 2, 2) of images with like contents; the last image of an odd number is left out.

    Images are ordered by their rarest class, the number of its objects, and all other numbers;
    neighbours are pairs.
    """
    rarity = np.argsort(counts.sum(axis=0), kind="stable")
    order = np.lexsort(-counts[:, rarity[::-1]].T)  # the last key is the first: the rarest class
    return order[: len(order) // 2 * 2].reshape(-1, 2)


def assign(pairs: NDArray[np.int64], images: int, generator: np.random.Generator) -> SplitMask:
    """One image of each pair to either half, by a coin."""
    first = np.zeros(images, bool)
    first[pairs[np.arange(len(pairs)), generator.integers(0, 2, len(pairs))]] = True
    return first


def improve(first: SplitMask, counts: Counts, moves: int) -> None:
    """Move single images between the halves, in place, while the sum of powers falls.

    An image of the worst class that can be bettered moves; halves stay within a hundredth of each
    other.
    """
    total = np.maximum(counts.sum(axis=0), 1)
    least = counts.sum(axis=0) % 2 / total  # an odd number cannot be halved
    difference = 2 * counts[first].sum(axis=0) - counts.sum(axis=0)
    with_class = [np.flatnonzero(counts[:, c]) for c in range(counts.shape[1])]
    slack = max(1, len(counts) // 100)
    for _ in range(moves):
        relative = np.abs(difference) / total
        current = (relative**POWER).sum()
        for worst in np.argsort(least - relative):
            images = with_class[worst]
            images = images[first[images] == (difference[worst] > 0)]  # on the heavier side
            if abs(2 * int(first.sum()) - len(first)) >= slack:  # only towards the smaller half
                images = images[first[images] == (2 * first.sum() > len(first))]
            if not len(images):
                continue
            sign = np.where(first[images], -2, 2)[:, None]
            after = np.abs(difference + sign * counts[images]) / total
            sums = (after**POWER).sum(axis=1)
            chosen = int(sums.argmin())
            if sums[chosen] < current:
                image = images[chosen]
                difference = difference + sign[chosen] * counts[image]
                first[image] = ~first[image]
                break
        else:
            return
