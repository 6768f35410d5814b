"""The loop of OverFeat's accumulation (section 4.3), compiled: imported when it is first used."""

from functools import cache
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from detection.runtime.compiled import compile_once, kernel

Boxes = NDArray[np.float64]


@kernel
def match_score(boxes: Boxes, one: int, other: int, distance: float, intersection: float) -> float:
    """Of two boxes, see `Accumulation`; inf where neither has an area."""
    x1, y1, x2, y2 = boxes[one]
    u1, v1, u2, v2 = boxes[other]
    area, size = (x2 - x1) * (y2 - y1), (u2 - u1) * (v2 - v1)
    mean = sqrt((area + size) / 2)
    if mean == 0.0:
        return inf
    away = sqrt(((x1 + x2 - u1 - u2) / 2) ** 2 + ((y1 + y2 - v1 - v2) / 2) ** 2)
    wide, high = min(x2, u2) - max(x1, u1), min(y2, v2) - max(y1, v1)
    shared = max(wide, 0.0) * max(high, 0.0) / max(area, size)
    return distance * away / mean + intersection * (1.0 - shared)


@kernel
def merge_pairs(  # noqa: C901  (compiled: one function)
    boxes: Boxes,
    scores: NDArray[np.float64],
    distance: float,
    intersection: float,
    limit: float,
    weighted: bool,
) -> NDArray[np.int64]:
    """Join the pair of best match until none is good enough; which rows are left.

    Every row knows its best partner among the later ones. A merge changes two rows, so that only
    their column is looked at again, and whole rows only where they lost their partner.

    Args:
        boxes: (N, 4) of one class, sorted by their left edge; the merged are written into it.
        scores: (N,), likewise: sums.
        distance: weight of the distance of centres; see `Accumulation`.
        intersection: weight of what two boxes do not share.
        limit: of the match score of a pair that is joined.
        weighted: average of all members, not of the two boxes.
    """
    count = len(boxes)
    members = np.ones(count)
    alive = np.ones(count, np.bool_)
    partner = np.full(count, -1)
    best = np.full(count, inf)
    apart = limit < intersection  # boxes without intersection are never joined
    todo = np.arange(count)  # rows whose partner is to be found
    left, is_first = count, True
    while True:
        for row in todo[:left]:
            best[row], partner[row] = inf, -1
            x1, y1, x2, y2 = boxes[row]
            for other in range(row + 1, count):
                if not alive[other]:
                    continue
                if apart:
                    if boxes[other, 0] >= x2:
                        if is_first:  # later ones begin farther right
                            break
                        continue
                    if boxes[other, 2] <= x1 or boxes[other, 1] >= y2 or boxes[other, 3] <= y1:
                        continue
                match = match_score(boxes, row, other, distance, intersection)
                if match < best[row]:
                    best[row], partner[row] = match, other
        is_first = False
        first, least = -1, inf
        for row in range(count):
            if alive[row] and best[row] < least:
                first, least = row, best[row]
        if first < 0 or least > limit:
            return np.flatnonzero(alive)
        second = partner[first]
        own, others = (members[first], members[second]) if weighted else (1.0, 1.0)
        for side in range(4):
            total = own * boxes[first, side] + others * boxes[second, side]
            boxes[first, side] = total / (own + others)
        scores[first] += scores[second]
        members[first] += members[second]
        alive[second] = False
        left = 0
        x1, y1, x2, y2 = boxes[first]
        for row in range(second):
            if not alive[row]:
                continue
            if row == first or partner[row] == first or partner[row] == second:
                todo[left] = row
                left += 1
            elif row < first:
                u1, v1, u2, v2 = boxes[row]
                if apart and (u1 >= x2 or u2 <= x1 or v1 >= y2 or v2 <= y1):
                    continue
                match = match_score(boxes, row, first, distance, intersection)
                if match < best[row] or (match == best[row] and first < partner[row]):
                    best[row], partner[row] = match, first


@cache
def ready() -> None:
    """Make sure that it is compiled."""
    compile_once(
        lambda: merge_pairs(np.zeros((1, 4)), np.zeros(1), 1.0, 1.0, 0.5, False),
        "the merging of boxes",
        4,
    )
