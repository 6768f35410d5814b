"""Hierarchical grouping of segments (Uijlings et al. 2013, section 3), compiled.

The two most similar neighbours are joined, again and again, until the whole picture is one. What
is similar is a sum of up to four measures, each in [0, 1]: colour, texture, size and fill.

Histograms are counts of pixels, and two of them are compared in whole numbers: with sizes s and
t, Σ min(h/s, g/t) = Σ min(h t, g s) / (s t), where the sum is exact in float64 for pictures of up
to 38 million pixels. So the order in which a processor adds changes nothing, and equal
similarities are equal. (Larger pictures may be grouped otherwise on another processor.)
"""

import numba
import numpy as np
from numpy.typing import NDArray

from detection.proposals.graph_segmentation import find
from detection.runtime.compiled import kernel

COLOUR_BINS, TEXTURE_BINS, DIRECTIONS = 25, 10, 8  # Uijlings et al. 2013, 3.2
RIGHT, DOWN = (1, -1, 0, 1), (0, 1, 1, 1)  # steps to half of a pixel's eight neighbours

Pair = np.int64  # lower node << 32 | higher node
Segments = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""Of each node (2 S - 1; segments first, the rest still empty): number of pixels, half-open xyxy
box (n, 4), counts of colours (n, 25 C) and of textures (n, 80 C)."""


@kernel
def neighbour_pairs(  # noqa: C901  (compiled: one function, no calls inside the loop)
    labels: NDArray[np.int32], count: int
) -> NDArray[np.int32]:
    """Pairs (P, 2) of the segments that touch, also at a corner; the lower label first."""
    height, width = labels.shape
    starts = np.zeros(count + 2, np.int64)
    for y in range(height):
        for x in range(width):
            for d in range(4):
                right, down = x + RIGHT[d], y + DOWN[d]
                if 0 <= right < width and down < height and labels[y, x] != labels[down, right]:
                    starts[min(labels[y, x], labels[down, right]) + 2] += 1
    starts = np.cumsum(starts)
    higher = np.empty(starts[-1], np.int32)  # partners of each lower label, still with repeats
    for y in range(height):
        for x in range(width):
            for d in range(4):
                right, down = x + RIGHT[d], y + DOWN[d]
                if 0 <= right < width and down < height and labels[y, x] != labels[down, right]:
                    low = min(labels[y, x], labels[down, right])
                    higher[starts[low + 1]] = max(labels[y, x], labels[down, right])
                    starts[low + 1] += 1
    pairs = np.empty((len(higher), 2), np.int32)
    seen_with = np.full(count, -1, np.int32)
    n = 0
    for low in range(count):
        for high in higher[starts[low] : starts[low + 1]]:
            if seen_with[high] != low:
                seen_with[high] = low
                pairs[n, 0], pairs[n, 1] = low, high
                n += 1
    return pairs[:n].copy()


@kernel
def texture_codes(dx: NDArray[np.float32], dy: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The bin of each derivative, (H, W, 4 C) uint8: 0 to 9, and 10 to 19 on the opposite side.

    Of two opposite directions one derivative is positive; the other's counts in its lowest bin.
    The bins of a channel share the range from 0 to its largest derivative (ours: the paper does
    not say; a fixed range would put nearly all pixels of a smooth picture into the lowest bin).

    Args:
        dx: (H, W, C) Gaussian derivatives to the right.
        dy: (H, W, C) and downwards; those between follow from both.
    """
    height, width, channels = dx.shape
    codes = np.empty((height, width, channels * 4), np.uint8)
    half = np.float32(np.sqrt(0.5))
    for c in range(channels):
        largest = np.float32(0)
        for y in range(height):
            for x in range(width):
                a, b = abs(dx[y, x, c]), abs(dy[y, x, c])
                largest = max(largest, a, b, half * (a + b))
        scale = np.float32(TEXTURE_BINS) / largest if largest > 0 else np.float32(0)
        for y in range(height):
            for x in range(width):
                a, b = dx[y, x, c] * scale, dy[y, x, c] * scale
                for d, value in enumerate((a, half * (a + b), b, half * (b - a))):
                    code = min(TEXTURE_BINS - 1, int(abs(value)))
                    codes[y, x, 4 * c + d] = code if value >= 0 else code + TEXTURE_BINS
    return codes


@kernel
def describe(
    labels: NDArray[np.int32], count: int, image: NDArray[np.uint8], codes: NDArray[np.uint8]
) -> Segments:
    """What grouping needs to know of segments, with room for what they become.

    Args:
        labels: (H, W), from 0.
        count: S, how many.
        image: (H, W, C).
        codes: see `texture_codes`.
    """
    height, width, channels = image.shape
    nodes = 2 * count - 1
    sizes = np.zeros(nodes, np.int32)
    boxes = np.zeros((nodes, 4), np.int32)
    boxes[:count, 0], boxes[:count, 1] = width, height
    colours = np.empty((nodes, COLOUR_BINS * channels), np.int32)
    textures = np.empty((nodes, TEXTURE_BINS * DIRECTIONS * channels), np.int32)
    colours[:count], textures[:count] = 0, 0
    for y in range(height):
        for x in range(width):
            own = labels[y, x]
            sizes[own] += 1
            boxes[own, 0] = min(boxes[own, 0], x)
            boxes[own, 1] = min(boxes[own, 1], y)
            boxes[own, 2] = max(boxes[own, 2], x + 1)
            boxes[own, 3] = y + 1
            for c in range(channels):
                colours[own, c * COLOUR_BINS + (np.int32(image[y, x, c]) * COLOUR_BINS >> 8)] += 1
            for d in range(channels * 4):
                code = codes[y, x, d]
                if code % TEXTURE_BINS:  # most are in the lowest bin, which is what is left over
                    textures[own, d * 2 * TEXTURE_BINS + code] += 1
    for own in range(count):
        for d in range(channels * DIRECTIONS):
            first = d * TEXTURE_BINS
            others = textures[own, first + 1 : first + TEXTURE_BINS].sum()
            textures[own, first] = sizes[own] - others
    return sizes, boxes, colours, textures


@numba.njit(nogil=True, fastmath={"reassoc", "nsz"})  # exact sums: any order, so many at a time
def intersection(p: NDArray[np.int32], q: NDArray[np.int32], s: float, t: float) -> float:
    """Σ min(p t, q s): the intersection of two histograms of s and t pixels, times s t."""
    total = 0.0
    for b in range(len(p)):
        x, y = p[b] * t, q[b] * s
        total += x if x < y else y
    return total


@kernel
def similarity(
    i: int, j: int, segments: Segments, use: tuple[bool, bool, bool, bool], area: float
) -> float:
    """The sum of the measures in use, of two nodes (Uijlings et al. 2013, equations 2 to 6)."""
    sizes, boxes, colours, textures = segments
    s, t = float(sizes[i]), float(sizes[j])
    channels = colours.shape[1] // COLOUR_BINS
    total = 0.0
    if use[0]:
        total += intersection(colours[i], colours[j], s, t) / (channels * s * t)
    if use[1]:
        directions = channels * DIRECTIONS
        total += intersection(textures[i], textures[j], s, t) / (directions * s * t)
    if use[2]:
        total += 1.0 - (s + t) / area
    if use[3]:
        width = max(boxes[i, 2], boxes[j, 2]) - min(boxes[i, 0], boxes[j, 0])
        height = max(boxes[i, 3], boxes[j, 3]) - min(boxes[i, 1], boxes[j, 1])
        total += 1.0 - (float(width) * float(height) - s - t) / area
    return total


@kernel
def comes_first(score: float, pair: Pair, other_score: float, other_pair: Pair) -> bool:
    """The order of the heap: the most similar pair, and of equals the one of lower nodes."""
    return bool(score > other_score or (score == other_score and pair < other_pair))


@kernel
def push(
    heap: tuple[NDArray[np.float64], NDArray[np.int64]], length: int, score: float, pair: Pair
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The heap with one pair more, in arrays twice as long where it was full."""
    scores, pairs = heap
    if length == len(scores):
        scores = np.concatenate((scores, np.empty_like(scores)))
        pairs = np.concatenate((pairs, np.empty_like(pairs)))
    place = length
    while place > 0:
        up = (place - 1) >> 1
        if not comes_first(score, pair, scores[up], pairs[up]):
            break
        scores[place], pairs[place] = scores[up], pairs[up]
        place = up
    scores[place], pairs[place] = score, pair
    return scores, pairs


@kernel
def pop(heap: tuple[NDArray[np.float64], NDArray[np.int64]], length: int) -> Pair:
    """The first pair, taken from a heap of `length` pairs."""
    scores, pairs = heap
    first = pairs[0]
    score, pair = scores[length - 1], pairs[length - 1]
    place, down = 0, 1
    while down < length - 1:
        if down + 1 < length - 1 and comes_first(
            scores[down + 1], pairs[down + 1], scores[down], pairs[down]
        ):
            down += 1
        if not comes_first(scores[down], pairs[down], score, pair):
            break
        scores[place], pairs[place] = scores[down], pairs[down]
        place, down = down, 2 * down + 1
    scores[place], pairs[place] = score, pair
    return first


@kernel
def group(  # noqa: C901  (compiled: one function)
    segments: Segments, touching: NDArray[np.int32], use: tuple[bool, bool, bool, bool]
) -> NDArray[np.int32]:
    """The two nodes that each step joins, (S - 1, 2); step i makes node S + i.

    A node's neighbours are a chain of entries. Two nodes that are joined join their chains, and
    entries of nodes that are gone are led to what they have become when the chain is walked next,
    so that a step costs the neighbours of its two nodes. Pairs of nodes that are gone stay in the
    heap, and are passed over when they come up.

    Args:
        segments: see `describe`; boxes, sizes and histograms of the new nodes are filled in.
        touching: (P, 2) pairs of neighbours; together they connect all segments.
        use: colour, texture, size, fill.
    """
    sizes, boxes, colours, textures = segments
    nodes = len(sizes)
    count = (nodes + 1) // 2
    area = float(sizes[:count].sum())
    joined = np.empty((count - 1, 2), np.int32)
    entry = np.empty(2 * len(touching), np.int32)
    following = np.full(2 * len(touching), -1, np.int32)
    head, tail = np.full(nodes, -1, np.int32), np.full(nodes, -1, np.int32)
    heap = np.empty(4 * len(touching) + 1, np.float64), np.empty(4 * len(touching) + 1, np.int64)
    length = 0
    for p in range(len(touching)):
        low, high = touching[p]
        for own, other, place in ((low, high, 2 * p), (high, low, 2 * p + 1)):
            entry[place] = other
            if head[own] < 0:
                head[own] = place
            else:
                following[tail[own]] = place
            tail[own] = place
        score = similarity(low, high, segments, use, area)
        heap = push(heap, length, score, np.int64(low) << 32 | np.int64(high))
        length += 1
    become = np.arange(nodes).astype(np.int32)  # itself, or what a node was joined into
    met = np.full(nodes, -1, np.int32)
    for new in range(count, nodes):
        i, j = np.int64(0), np.int64(0)
        while True:
            pair = pop(heap, length)
            length -= 1
            i, j = pair >> 32, pair & 0x7FFFFFFF
            if become[i] == i and become[j] == j:
                break
        joined[new - count, 0], joined[new - count, 1] = i, j
        become[i] = become[j] = new
        sizes[new] = sizes[i] + sizes[j]
        boxes[new, :2] = np.minimum(boxes[i, :2], boxes[j, :2])
        boxes[new, 2:] = np.maximum(boxes[i, 2:], boxes[j, 2:])
        if use[0]:
            colours[new] = colours[i] + colours[j]
        if use[1]:
            textures[new] = textures[i] + textures[j]
        following[tail[i]] = head[j]
        head[new], last, place = head[i], -1, head[i]
        while place >= 0:
            other, after = find(become, entry[place]), following[place]
            if other == new or met[other] == new:  # inside, or a second time: out of the chain
                if last < 0:
                    head[new] = after
                else:
                    following[last] = after
            else:
                met[other] = new
                entry[place] = other
                last = place
                score = similarity(other, new, segments, use, area)
                heap = push(heap, length, score, np.int64(other) << 32 | np.int64(new))
                length += 1
            place = after
        tail[new] = last
    return joined
