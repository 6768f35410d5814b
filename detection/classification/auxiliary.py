"""Classifiers on a network's inner maps, in training alone (Szegedy et al. 2014, section 5)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.googlenet import InceptionAux


class AuxiliaryClassifiers(nn.Module):
    """One on each of some inner maps: their gradients reach a deep network's first layers.

    Args:
        channels: of each map.
        num_classes: K.
    """

    def __init__(self, channels: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(InceptionAux(count, num_classes) for count in channels)

    def forward(self, maps: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The sum of their cross-entropies.

        Args:
            maps: of each classifier, (B, C, h, w).
            labels: (B,) of the images.
        """
        losses = [
            F.cross_entropy(head(inner).float(), labels)
            for head, inner in zip(self.heads, maps, strict=True)
        ]
        return torch.stack(losses).sum()


@contextmanager
def outputs_of(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What some layers give in the passes inside, in the order in which they run."""
    found: list[Tensor] = []
    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output))
        for layer in layers
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
