"""Seeds of everything random, from a run's seed and the number of what is drawn."""

import torch


def mixed(*numbers: int) -> int:
    """One seed from several numbers, well mixed.

    >>> mixed(1, 2) != mixed(2, 1)
    True
    """
    generator = torch.Generator().manual_seed(0)
    value = 0
    for number in numbers:
        value = (value * 6364136223846793005 + number + 1442695040888963407) % 2**63
        value = int(torch.randint(2**62, (), generator=generator.manual_seed(value)))
    return value
