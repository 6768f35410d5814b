"""Which images a process takes."""

from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DistributedSampler


def ranks(trainer: pl.Trainer | None) -> tuple[int, int]:
    """Number of this process, and how many there are."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


class ShardSampler(DistributedSampler[Any]):
    """Every image once over all processes, in order: rank, rank + world, ...

    A process for which none is left takes the last image too, for Lightning waits for all: who
    measures must tell images apart by their number.

    Lightning leaves an instance of `DistributedSampler` alone where it would otherwise add its
    own, which repeats images until the processes hold equally many.

    Args:
        length: images in the data set.
        rank: this process, from 0.
        world_size: processes.
    """

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, length, world_size) or range(length - 1, length)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """The order is the same in every epoch."""
