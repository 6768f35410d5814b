"""Splits of a data set that brings none of its own."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np


def stratified_split(
    labels: Mapping[str, Sequence[str]], fractions: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Image ids for each split, so that each class is spread in the wanted proportions.

    Images are assigned one by one, those of the rarest class first, to the split that lacks most
    of that class (iterative stratification, Sechidis et al. 2011). Deterministic for a seed.

    Args:
        labels: image id → names of the classes in it; may be empty.
        fractions: split → share of the images; the shares add up to 1.
        seed: of the order in which images are assigned.

    >>> ids = {str(i): ["cat" if i % 2 else "dog"] for i in range(10)}
    >>> {k: len(v) for k, v in stratified_split(ids, {"train": 0.8, "test": 0.2}, 0).items()}
    {'train': 8, 'test': 2}
    """
    generator = np.random.default_rng(seed)
    waiting = [sorted(labels)[i] for i in generator.permutation(len(labels))]
    images_of = Counter(name for names in labels.values() for name in set(names))
    wanted = {
        split: {name: share * n for name, n in images_of.items()}
        for split, share in fractions.items()
    }
    images_left = {split: share * len(labels) for split, share in fractions.items()}
    result: dict[str, list[str]] = {split: [] for split in fractions}
    rarest_first = sorted(images_of, key=lambda name: (images_of[name], name))
    rank = {name: i for i, name in enumerate(rarest_first)}
    no_class = len(rank)
    waiting.sort(key=lambda image: min((rank[n] for n in labels[image]), default=no_class))
    for image in waiting:
        names = sorted(set(labels[image]), key=rank.__getitem__)
        split = max(images_left, key=lambda s: ([wanted[s][n] for n in names[:1]], images_left[s]))
        result[split].append(image)
        images_left[split] -= 1
        for name in names:
            wanted[split][name] -= 1
    return {split: sorted(ids) for split, ids in result.items()}
