"""Learning rates over the steps of a stage."""

from collections.abc import Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR


def drops(
    optimizer: Optimizer, steps: int, at: Sequence[float], factor: float = 0.1
) -> LRScheduler:
    """A part of the rate from each of some shares of the steps on."""
    return MultiStepLR(optimizer, [round(share * steps) for share in at], gamma=factor)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up from a twenty-fifth of each group's rate, and down to nothing."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
