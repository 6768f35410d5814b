"""ILSVRC DET's val into val1 and val2 (R-CNN, 4.1): how even, and how long it takes.

Counts are drawn: 20,121 images, 200 classes of which the commonest is thirty times as common
as the rarest. Peer: the best of as many splits by a coin.
"""

import time

import numpy as np

from detection.data.ilsvrc.class_balance import balanced_halves, imbalance

IMAGES, CLASSES, CANDIDATES, MOVES = 20_121, 200, 30, 3000


def main() -> None:
    """Print both."""
    generator = np.random.default_rng(0)
    share = 30.0 ** -(np.arange(CLASSES) / CLASSES)
    counts = np.zeros((IMAGES, CLASSES), np.int64)
    for row in counts:
        kinds = generator.choice(CLASSES, generator.integers(0, 4), p=share / share.sum())
        np.add.at(row, kinds, generator.integers(1, 4, len(kinds)))
    start = time.perf_counter()
    split = balanced_halves(counts, CANDIDATES, MOVES, 0)
    seconds = time.perf_counter() - start
    coins = [generator.random(IMAGES) < 0.5 for _ in range(CANDIDATES)]
    coin = min((imbalance(c, counts) for c in coins), key=lambda i: float(i.max()))
    for name, found in (("ours", split.imbalance), ("coin", coin)):
        print(f"{name}: largest imbalance {found.max():.1%}, median {np.median(found):.2%}")
    print(f"{seconds:.1f} s for {IMAGES} images, {CLASSES} classes, {CANDIDATES} candidates")


if __name__ == "__main__":
    main()
