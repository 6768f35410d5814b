"""Where a cell of a feature map looks in the image, computed from the layers."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class ReceptiveField:
    """Geometry of a map.

    Attributes:
        stride: pixels from a cell to the next.
        size: pixels that a cell sees along a side (normalisation layers apart).
        start: 0-based pixel coordinate of the centre of the first cell's field.
    """

    stride: int = 1
    size: int = 1
    start: float = 0.0


def receptive_field(layers: Iterable[nn.Module]) -> ReceptiveField:
    """The field of the last of some layers, which follow each other.

    >>> receptive_field([nn.Conv2d(3, 8, 7, stride=2, padding=1), nn.MaxPool2d(3, 2)])
    ReceptiveField(stride=4, size=11, start=4.0)
    """
    field = ReceptiveField()
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, stride, padding = (
                side(n) for n in (layer.kernel_size, layer.stride, layer.padding)
            )
            field = ReceptiveField(
                field.stride * stride,
                field.size + (kernel - 1) * field.stride,
                field.start + ((kernel - 1) / 2 - padding) * field.stride,
            )
    return field


def side(value: Any) -> int:
    """A kernel, stride or padding given as one number or as a pair of equal ones."""
    return int(value if isinstance(value, int) else value[0])
