"""Which images a process takes."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler, Sampler

from detection.errors import UserError


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


class ShuffledBatches(Sampler[list[tuple[int, int]]]):
    """An epoch's batches of rows with a seed each; a batch is shared out between the processes.

    The images of a step do not depend on the number of processes, as long as the product of it
    and the batch size stays. What is left over at the end waits for another epoch, so that all
    processes take equally many steps.

    Args:
        length: images.
        batch_size: of each process.
        seed: of the order and of the images' seeds.
        ranks: number of this process, and how many there are.
        part: of the epoch, and how many there are; together they are the whole.

    Raises:
        UserError: there are fewer images than processes, or batches than parts.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int,
        ranks: tuple[int, int],
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.rank, self.world = ranks
        if length < self.world:
            raise UserError(f"{length} training images do not go round {self.world} processes")
        self.length, self.seed = length, seed
        self.batch_size = min(batch_size, length // self.world)
        steps = self.length // (self.batch_size * self.world)
        number, count = part
        if steps < count:
            raise UserError(
                f"an epoch of {steps} batches has no {count} parts: raise "
                "model.stages.train.crops_per_checkpoint"
            )
        self.steps = range(steps * number // count, steps * (number + 1) // count)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        generator = np.random.default_rng(self.seed)
        order = generator.permutation(self.length)
        seeds = generator.integers(2**31, size=self.length)
        for step in self.steps:
            start = (step * self.world + self.rank) * self.batch_size
            rows = order[start : start + self.batch_size]
            yield [(int(row), int(seeds[row])) for row in rows]
