"""Things from all processes, in the order of their images."""

from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def gather_in_order(own: Sequence[tuple[int, T]]) -> list[T]:
    """What all processes hold, sorted by the number that comes with each; same in every process."""
    everything = list(own)
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        parts: list[list[tuple[int, T]]] = [[] for _ in range(dist.get_world_size())]
        dist.all_gather_object(parts, everything)
        everything = [item for part in parts for item in part]
    return [value for _, value in sorted(everything, key=lambda pair: pair[0])]


def my_share(count: int) -> range:
    """The numbers below `count` that this process works on."""
    if dist.is_available() and dist.is_initialized():
        return range(dist.get_rank(), count, dist.get_world_size())
    return range(count)


def wait_for_all() -> None:
    """Wait until every process is here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
