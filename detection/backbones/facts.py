"""What a network's paper tells of it: parameters, connections, map sizes."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Facts:
    """Sizes of a network.

    Attributes:
        parameters: learnt numbers, biases included.
        connections: multiplications of weights for one input (OverFeat, table 4).
        maps: height and width after each convolution, pooling, and fully connected layer.
    """

    parameters: int
    connections: int
    maps: list[tuple[str, int, int]]


def facts(network: nn.Module, height: int, width: int) -> Facts:
    """Facts of a network on one (3, height, width) image, by a pass that computes no numbers."""
    connections = 0
    maps: list[tuple[str, int, int]] = []

    def note(layer: nn.Module, _: Any, output: Tensor) -> None:
        nonlocal connections
        places = output.shape[2] * output.shape[3] if output.dim() == 4 else 1
        weight = getattr(layer, "weight", None)
        connections += places * weight.numel() if weight is not None else 0
        sides = (output.shape[2], output.shape[3]) if output.dim() == 4 else (1, 1)
        maps.append((type(layer).__name__, *sides))

    meta_copy = copy.deepcopy(network).to("meta")
    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d)
    hooks = [m.register_forward_hook(note) for m in meta_copy.modules() if isinstance(m, kinds)]
    meta_copy(torch.zeros(1, 3, height, width, device="meta"))
    for hook in hooks:
        hook.remove()
    return Facts(sum(p.numel() for p in network.parameters()), connections, maps)
