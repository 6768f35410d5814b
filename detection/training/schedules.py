"""How long a stage trains, and its learning rates over the steps."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler, MultiStepLR, OneCycleLR

OptimizerFactory: TypeAlias = Callable[[Any], Optimizer]
"""From parameters, or groups of them, to an optimiser: an optimiser's class with all but these."""
ScheduleFactory: TypeAlias = Callable[[Optimizer, int], LRScheduler]
"""From an optimiser and the number of steps to its learning rates."""


@dataclass(frozen=True)
class TrainingLength:
    """How long to train.

    Attributes:
        steps_per_image: batches for each training image, so that the length follows the data.
        min_steps: never fewer batches.
        steps_per_epoch: batches between two checkpoints and validations.
    """

    steps_per_image: float
    min_steps: int = 1000
    steps_per_epoch: int = 500

    def epochs(self, images: int) -> tuple[int, int]:
        """Epochs, and steps in each."""
        wanted = max(self.min_steps, round(self.steps_per_image * images))
        steps = min(self.steps_per_epoch, wanted)
        return math.ceil(wanted / steps), steps


def step_decay(
    optimizer: Optimizer, steps: int, at: Sequence[float], factor: float = 0.1
) -> LRScheduler:
    """The learning rate is multiplied by `factor` after each of some shares of the steps."""
    return MultiStepLR(optimizer, [round(share * steps) for share in at], gamma=factor)


def adamw(parameters: Any, lr: float, weight_decay: float, momentum: float = 0.9) -> Optimizer:
    """AdamW with SGD's words, so that a config may take one for the other.

    Args:
        parameters: to be trained, or groups of them.
        lr: the learning rate.
        weight_decay: decoupled, times the learning rate.
        momentum: decay of the mean of gradients, AdamW's first beta.
    """
    return AdamW(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay)


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler:
    """Up from a twenty-fifth of each group's learning rate, and down to nothing."""
    highest = [group["lr"] for group in optimizer.param_groups]
    return OneCycleLR(optimizer, highest, total_steps=steps, cycle_momentum=False)


def scheduled(
    optimizer: Optimizer, schedule: ScheduleFactory | None, steps: int
) -> tuple[list[Optimizer], list[Any]]:
    """An optimiser and its learning rates, step by step, as Lightning takes them.

    None is one cycle: the optimiser's learning rate is its highest.
    """
    schedule = schedule or one_cycle
    return [optimizer], [{"scheduler": schedule(optimizer, steps), "interval": "step"}]
