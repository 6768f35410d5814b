"""Classifiers on a network's inner maps, in training only (Szegedy et al. 2014, section 5)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.googlenet import InceptionAux

from detection.backbones.backbone import Backbone


class AuxiliaryClassifiers(nn.Module):
    """One on each of some inner maps: their gradients reach a deep network's first layers.

    Args:
        backbone: of whose `auxiliary` maps there is one each; most networks have none.
        num_classes: C.
        weight: of their losses; 0 for none of them.
    """

    def __init__(self, backbone: Backbone, num_classes: int, weight: float) -> None:
        super().__init__()
        inner = backbone.auxiliary if weight else ()
        self.weight = weight
        self.layers = tuple(backbone.conv[place] for place, _ in inner)  # the network's, not ours
        self.heads = nn.ModuleList(InceptionAux(channels, num_classes) for _, channels in inner)

    def forward(self, maps: Sequence[Tensor], labels: Tensor) -> Tensor:
        """The weighted sum of their cross-entropies.

        Args:
            maps: of each classifier, (B, C, h, w).
            labels: (B,) of the images.
        """
        losses = [
            F.cross_entropy(head(inner).float(), labels)
            for head, inner in zip(self.heads, maps, strict=True)
        ]
        return self.weight * torch.stack(losses).sum()


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
