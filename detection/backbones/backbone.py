"""What every backbone offers to a detector."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.head import FullyConnected, as_linear
from detection.errors import UserError


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
        if isinstance(layer, nn.ZeroPad2d):  # more on the right than on the left
            left = float(layer.padding[0])
            field = replace(field, start=field.start - left * field.stride)
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            span, stride, padding = span_of(layer), side(layer.stride), side(layer.padding)
            field = ReceptiveField(
                field.stride * stride,
                field.size + (span - 1) * field.stride,
                field.start + ((span - 1) / 2 - padding) * field.stride,
            )
    return field


def span_of(layer: nn.Conv2d | nn.MaxPool2d) -> int:
    """Cells from the first to the last that a window reads, along a side."""
    return (side(layer.kernel_size) - 1) * side(layer.dilation) + 1


def side(value: Any) -> int:
    """A kernel, stride or padding given as one number or as a pair of equal ones."""
    return int(value if isinstance(value, int) else value[0])


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its inputs.

    Attributes:
        input_px: side of the square inputs that it was made for.
        mean: of R, G, B, for pixels in [0, 1].
        std: of R, G, B, for pixels in [0, 1].
    """

    input_px: int
    mean: Sequence[float]
    std: Sequence[float]


@dataclass(frozen=True)
class LoadedWeights:
    """What a reader of published weights found.

    Attributes:
        state: layers in our names: all of `conv.*`, and `fc6.*`, `fc7.*` if there are any.
        source: where they are from, for messages.
        classifier: `weight` and `bias` of the published network's last layer, or nothing.
        mean: (3,) of R, G, B that the weights were trained with; None: the network's own.
    """

    state: dict[str, Tensor]
    source: str
    classifier: dict[str, Tensor] = field(default_factory=dict)
    mean: Tensor | None = None


class Backbone(nn.Module):
    """Convolutions, how to feed them, and what published weights brought for a head.

    The fully connected layers are no part of it (`parameters()` are those of the convolutions):
    whoever builds a head asks for them, see `fully_connected`.

    Args:
        conv: layers from image to map, one after the other.
        fc_layers: fc6, which takes the map, pooled to a grid and flattened (channels, rows,
            columns), and fc7, which takes fc6's output; None for networks that average the map.
        fc6_grid: side of that grid; 1 where there is no fc6.
        pool: kernel and stride of the published last pooling, which `conv` leaves out.
        inputs: side, mean and spread of the inputs.
        channels: of the map; only where there is no fc6.
        path: layers that reach farthest, where `conv` is no simple row of them.
        auxiliary: place in `conv` and channels of each inner map that a classifier of its own
            reads in training (GoogLeNet's).

    Attributes:
        pretrained: whether weights were loaded; without, a detector must learn them first.
        published_classifier: `weight` and `bias` of a published network's last layer, if any.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        conv: nn.Sequential,
        fc_layers: tuple[nn.Linear, nn.Linear] | None,
        fc6_grid: int,
        pool: tuple[int, int] | None,
        inputs: Preprocessing,
        *,
        channels: int = 0,
        path: Sequence[nn.Module] | None = None,
        auxiliary: Sequence[tuple[int, int]] = (),
    ) -> None:
        super().__init__()
        self.conv = conv.to(memory_format=torch.channels_last)  # faster on CPUs and with bf16
        self._fc = fc_layers  # a tuple, so that they are not registered as modules of ours
        self._fc_pretrained = False
        self._other_fc: dict[str, Tensor] = {}  # published, but of another grid or pyramid
        self.fc6_grid = fc6_grid
        self.input_px = inputs.input_px
        self.path = tuple(path) if path is not None else tuple(conv)
        self.channels = fc_layers[0].in_features // fc6_grid**2 if fc_layers else channels
        self.pool = pool
        self.auxiliary = tuple(auxiliary)
        self.pretrained = False
        self.published_classifier: dict[str, Tensor] = {}
        self.register_buffer("mean", torch.tensor(inputs.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(inputs.std).view(3, 1, 1))

    @property
    def has_fc(self) -> bool:
        """Whether the published network has fc6 and fc7; if not, its classifier reads the mean."""
        return self._fc is not None

    def fully_connected(self, in_features: int) -> FullyConnected | None:
        """fc6 and fc7 for a head, if this network has an fc6 that reads that many features.

        Published ones of another grid or pyramid serve too, if they fit.
        """
        if (
            self._fc
            and self._fc[0].in_features == in_features
            and (self._fc_pretrained or not self._other_fc)
        ):
            return FullyConnected(*self._fc, self._fc_pretrained)
        other = self._other_fc
        if other and other["fc6.weight"].shape[1] == in_features:
            return FullyConnected(as_linear(other, "fc6"), as_linear(other, "fc7"), True)
        if other:
            log.warning(
                "fc6 and fc7 start from random weights: those that were given read %d features, "
                "and here are %d, of another grid or pyramid",
                other["fc6.weight"].shape[1], in_features,
            )  # fmt: skip
        if self._fc and self._fc[0].in_features == in_features:
            return FullyConnected(*self._fc, False)
        return None

    @property
    def grid_fc(self) -> FullyConnected | None:
        """fc6 and fc7 as published: fc6 reads `fc6_grid`² cells. None where there are none."""
        return FullyConnected(*self._fc, self._fc_pretrained) if self._fc else None

    def load(self, loaded: LoadedWeights) -> None:
        """Take published weights: all convolutions, and fc6 and fc7 where they fit.

        Raises:
            UserError: a convolution is missing, or a layer is of another shape.
        """
        state, own = dict(loaded.state), {f"conv.{k}": v for k, v in self.conv.state_dict().items()}
        missing = [key for key in own if key not in state]
        if missing:
            raise UserError(
                f"weights of {loaded.source} lack {', '.join(missing[:4])}: they are of another "
                "network"
            )
        fc = {key: value for key, value in state.items() if key.startswith("fc")}
        if self._fc:
            fc_own = {f"{n}.{k}": v for n, layer in zip(("fc6", "fc7"), self._fc, strict=True)
                      for k, v in layer.state_dict().items()}  # fmt: skip
            if fc and fc["fc6.weight"].shape != fc_own["fc6.weight"].shape:
                self._other_fc, fc = fc, {}
            own |= fc_own
        else:
            self._other_fc, fc = fc, {}
        state = {key: value for key, value in state.items() if key.startswith("conv.")} | fc
        for key, value in state.items():
            if key not in own or own[key].shape != value.shape:
                wanted = tuple(own[key].shape) if key in own else "no such layer"
                raise UserError(
                    f"weights of {loaded.source}: {key} is {tuple(value.shape)}, but this network "
                    f"has {wanted}; choose the backbone (and backbone.width) they were trained with"
                )
        with torch.no_grad():
            for key, value in state.items():
                own[key].copy_(value)
            if loaded.mean is not None:
                self.mean.copy_(loaded.mean.view(3, 1, 1))
        self.pretrained = True
        self._fc_pretrained = bool(fc)
        self.published_classifier = dict(loaded.classifier)

    @property
    def field(self) -> ReceptiveField:
        """Stride, size and offset of the map's receptive fields."""
        return receptive_field(self.path)

    def map_side(self, side_px: int) -> int:
        """Cells along a side of the map of an input."""
        for layer in self.path:
            if isinstance(layer, nn.ZeroPad2d):
                side_px += layer.padding[0] + layer.padding[1]
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                k, s, p = span_of(layer), side(layer.stride), side(layer.padding)
                up = s - 1 if getattr(layer, "ceil_mode", False) else 0
                side_px = (side_px + 2 * p - k + up) // s + 1
        return int(side_px)

    def least_side(self, cells: int = 1) -> int:
        """The smallest side of an input whose map has some cells along it."""
        side_px = 1
        while self.map_side(side_px) < cells:
            side_px += 1
        return side_px

    def check_input(self, side_px: int, option: str, cells: int = 1) -> None:
        """Check that inputs are large enough for the network.

        Args:
            side_px: of the inputs.
            option: that sets it.
            cells: along a side of the map, that are needed at least.

        Raises:
            UserError: their map has fewer cells; names the option, and the smallest side.
        """
        if self.map_side(side_px) < cells:
            least = self.least_side(cells)
            why = f"{cells}×{cells} bins" if cells > 1 else "this network"
            raise UserError(
                f"{option}={side_px} is too small for {why}: it needs {least} pixels a side"
            )

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, h, w) maps of normalised (B, 3, H, W) images; channels lie last in memory."""
        result: Tensor = self.conv(images.contiguous(memory_format=torch.channels_last))
        return result

    def pool5(self, maps: Tensor, grid: int | None = None) -> Tensor:
        """(B, C, g, g) of (B, C, h, w) maps: what fc6 reads, not flattened.

        Bins that cover the map are the published last pooling where the input is of the published
        size (13 → 6 is 3×3/2, 14 → 7 is 2×2/2), and fit fc6 at any other.
        """
        return F.adaptive_max_pool2d(maps, grid or self.fc6_grid)

    def train(self, mode: bool = True) -> "Backbone":
        """Batch norm of published weights stays as it is: batches are too small for its means."""
        super().train(mode)
        if self.pretrained:
            for layer in self.conv.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) RGB, uint8 in 0 to 255 or floats in [0, 1] → what the network expects."""
        pixels = images.float() if images.is_floating_point() else images.float() / 255
        return (pixels - self.mean) / self.std


def scaled(channels: int, width: float) -> int:
    """A number of channels, scaled for small experiments; a multiple of 8.

    >>> scaled(384, 0.25), scaled(384, 1.0)
    (96, 384)
    """
    return max(8, round(channels * width / 8) * 8)
