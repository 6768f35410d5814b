"""Which process of a run this is, and what all of them hold: over Lightning's and torch's own."""

import os
from collections.abc import Sequence
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


def rank() -> int:
    """Number of this process among all of the run, on whatever node; 0 is the one that writes.

    Before the processes know of each other it is what the launcher says: torchrun, SLURM, or
    Lightning's own (which numbers the processes of a node, and the nodes).
    """
    if is_initialized():
        return dist.get_rank()
    from pytorch_lightning.utilities import rank_zero_only  # slow to import

    launched: int = getattr(rank_zero_only, "rank", 0) or 0
    # on further nodes Lightning's own launcher counts local processes from 0 again
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", "0")))
    return launched or node


def world_size() -> int:
    """Number of processes that work together now."""
    return dist.get_world_size() if is_initialized() else 1


def is_first_process() -> bool:
    """Whether this process writes files and speaks for the run."""
    return rank() == 0


def is_initialized() -> bool:
    """Whether processes know of each other."""
    return dist.is_available() and dist.is_initialized()


def my_share(count: int) -> range:
    """The numbers below `count` that this process works on."""
    return range(rank(), count, world_size()) if is_initialized() else range(count)


def gather_in_order(own: Sequence[tuple[int, T]]) -> list[T]:
    """What all processes hold, sorted by the number that comes with each; same in every process."""
    everything = list(own)
    if world_size() > 1:
        parts: list[list[tuple[int, T]]] = [[] for _ in range(world_size())]
        dist.all_gather_object(parts, everything)
        everything = [item for part in parts for item in part]
    return [value for _, value in sorted(everything, key=lambda pair: pair[0])]


def wait_for_all() -> None:
    """Wait until every process is here."""
    if is_initialized():
        dist.barrier()
