"""Trains SVMs from features on disk, several classes side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from torch import Tensor

from detection.regions.row_files import Ids, RowFiles
from detection.regions.svm import SVMOptions, sparse, train_svm

BLOCK_ROWS = 4096  # rows of features brought into memory at a time
BYTES_A_NUMBER = 28  # that is not zero: 12 in our matrix, 16 in liblinear's copy of it
SMALL = 50_000_000  # numbers that are trained sooner than another process starts


@dataclass(frozen=True)
class Problem:
    """One class's examples: where its features are.

    Attributes:
        rows: files of features.
        positives: ids.
        negatives: ids.
    """

    rows: RowFiles
    positives: Ids
    negatives: Ids

    @property
    def numbers(self) -> int:
        """Numbers in all its features."""
        return (len(self.positives) + len(self.negatives)) * self.rows.dimensions


@dataclass(frozen=True)
class Solution:
    """One trained SVM.

    Attributes:
        weight: (D,).
        bias: ().
        scores: (n,) of the negatives.
    """

    weight: Tensor
    bias: Tensor
    scores: NDArray[np.float64]


def solve(problem: Problem, options: SVMOptions, seed: int) -> Solution:
    """Train one SVM."""
    ids = np.concatenate([problem.positives, problem.negatives])
    features = sparse(blocks(problem.rows, ids), problem.rows.dimensions)
    weight, bias = train_svm(features, len(problem.positives), options, seed)
    # scored here, while they are in memory: the easy ones are evicted by these scores
    scores = features @ weight.double().numpy() + float(bias)
    return Solution(weight, bias, scores[len(problem.positives) :])


def solve_all(
    problems: Sequence[Problem], options: SVMOptions, seed: int, max_bytes: float, processes: int
) -> list[Solution]:
    """Train some SVMs; the result does not depend on how many at a time.

    Processes, not threads: liblinear draws from one random generator for a whole process.

    Args:
        problems: one a class.
        options: of each.
        seed: of the solver's order.
        max_bytes: of features of all that are trained at a time, if half of them are not zero.
        processes: at most this many at a time.
    """
    largest = max([p.numbers for p in problems], default=0) * BYTES_A_NUMBER / 2
    jobs = max(1, min(processes, len(problems), int(max_bytes / max(largest, 1))))
    if sum(p.numbers for p in problems) < SMALL:
        jobs = 1
    every: list[Solution] = Parallel(n_jobs=jobs)(
        delayed(solve)(problem, options, seed) for problem in problems
    )
    return every


def blocks(rows: RowFiles, ids: Ids) -> Iterator[Tensor]:
    """Features of some ids, block by block."""
    for start in range(0, len(ids), BLOCK_ROWS):
        yield rows.read(ids[start : start + BLOCK_ROWS])
