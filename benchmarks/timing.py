"""How the benchmarks here time and print: medians of several runs, ours and a peer's in turn."""

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    """Time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    title: str,
    ours: Callable[[], object],
    peer_name: str,
    peer: Callable[[], object],
    runs: int = 7,
) -> float:
    """Print the median times of both and their ratio, after one run that is not counted."""
    ours(), peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(runs)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{title}: ours {mine:.4f} s, {peer_name} {theirs:.4f} s, {ratio:.1f} times as fast")
    return ratio
