"""How long a stage trains, and its learning rates over the steps."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR


@dataclass(frozen=True)
class Length:
    """How long to train.

    Attributes:
        steps_per_image: batches for each training image, so that the length follows the data.
        min_steps: never fewer batches.
        steps_per_epoch: batches between two checkpoints and validations.
    """

    steps_per_image: float
    min_steps: int
    steps_per_epoch: int

    def epochs(self, images: int) -> tuple[int, int]:
        """Epochs, and steps in each."""
        wanted = max(self.min_steps, round(self.steps_per_image * images))
        steps = min(self.steps_per_epoch, wanted)
        return math.ceil(wanted / steps), steps


def drops(
    optimizer: Optimizer, steps: int, at: Sequence[float], factor: float = 0.1
) -> LRScheduler:
    """A part of the rate from each of some shares of the steps on."""
    return MultiStepLR(optimizer, [round(share * steps) for share in at], gamma=factor)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up from a twenty-fifth of each group's rate, and down to nothing."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)
