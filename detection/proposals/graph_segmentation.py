"""Graph-based segmentation (Felzenszwalb and Huttenlocher 2004), compiled.

The pixels are the nodes of a graph, joined to their eight neighbours by edges that weigh as much
as the colours differ. Edges are taken from the lightest: two segments are joined where the edge
weighs no more than the heaviest inside either, plus k over its size.

All k of one colour space share the sorted edges.
"""

import numpy as np
from numpy.typing import NDArray

from detection.runtime.compiled import kernel

Edges = tuple[NDArray[np.int32], NDArray[np.float32]]
"""Edges from the lightest, as 4 · pixel + direction (right, down, down-right, down-left), and
their weights."""


@kernel
def sorted_edges(smooth: NDArray[np.float32]) -> Edges:  # noqa: C901  (compiled: one function)
    """The edges of a blurred (H, W, C) image, from the lightest; equal ones row by row.

    Weights are not negative, so their bits sort as they do: three passes over digits of 11 bits,
    in linear time.
    """
    height, width, channels = smooth.shape
    count = height * (width - 1) + (height - 1) * width + 2 * (height - 1) * (width - 1)
    weights = np.empty(count, np.float32)
    edges = np.empty(count, np.int32)
    n = 0
    for y in range(height):
        for x in range(width):
            for d in range(4):
                down = y if d == 0 else y + 1
                right = x + 1 if d == 0 else x + (0, 0, 1, -1)[d]
                if right < 0 or right >= width or down >= height:
                    continue
                total = np.float32(0)
                for c in range(channels):
                    difference = smooth[y, x, c] - smooth[down, right, c]
                    total += difference * difference
                weights[n] = np.sqrt(total)
                edges[n] = (y * width + x) * 4 + d
                n += 1
    keys = weights.view(np.uint32)
    counts = np.zeros((3, 2048), np.int64)
    for key in keys:
        for digit in range(3):
            counts[digit, (key >> (11 * digit)) & 2047] += 1
    other_keys, other_edges = np.empty_like(keys), np.empty_like(edges)
    for digit in range(3):
        starts = np.cumsum(counts[digit]) - counts[digit]
        for i in range(count):
            key = keys[i]
            bucket = (key >> (11 * digit)) & 2047
            place = starts[bucket]
            starts[bucket] = place + 1
            other_keys[place] = key
            other_edges[place] = edges[i]
        keys, other_keys = other_keys, keys
        edges, other_edges = other_edges, edges
    return edges, keys.view(np.float32)


@kernel
def find(parent: NDArray[np.int32], node: int) -> int:
    """The root of a node's tree; the path to it is halved on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def segment(  # noqa: C901  (compiled: one function)
    edges: NDArray[np.int32],
    weights: NDArray[np.float32],
    height: int,
    width: int,
    k: float,
    min_size: int,
) -> tuple[NDArray[np.int32], int]:
    """A segmentation: (H, W) labels from 0, in the order of their first pixels, and their number.

    Args:
        edges: see `sorted_edges`.
        weights: see `sorted_edges`.
        height: of the image.
        width: of the image.
        k: a larger one gives larger segments.
        min_size: smaller segments are joined to the neighbour over the lightest edge.
    """
    pixels = height * width
    step = np.array([1, width, width + 1, width - 1], np.int32)
    parent = np.arange(pixels).astype(np.int32)
    size = np.ones(pixels, np.int32)
    limit = np.full(pixels, np.float32(k), np.float32)  # of the next edge's weight, at a root
    apart = np.empty(len(edges), np.int32)  # edges between segments: the second pass needs no other
    n = 0
    for i in range(len(edges)):
        edge = edges[i]
        pixel = edge >> 2
        a = find(parent, pixel)
        b = find(parent, pixel + step[edge & 3])
        if a == b:
            continue
        if weights[i] <= limit[a] and weights[i] <= limit[b]:
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
            limit[a] = weights[i] + np.float32(k) / np.float32(size[a])
        else:
            apart[n] = edge
            n += 1
    for edge in apart[:n]:
        pixel = edge >> 2
        a = find(parent, pixel)
        b = find(parent, pixel + step[edge & 3])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    labels = np.empty(pixels, np.int32)
    number = np.full(pixels, -1, np.int32)
    count = 0
    for pixel in range(pixels):
        root = find(parent, pixel)
        if number[root] < 0:
            number[root] = count
            count += 1
        labels[pixel] = number[root]
    return labels.reshape(height, width), count
