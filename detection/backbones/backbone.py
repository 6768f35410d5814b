"""What every backbone offers to a detector."""

import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.receptive_field import ReceptiveField, receptive_field, side
from detection.errors import UserError

log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """Convolutions, the fully connected layers behind them if any, and how to feed them.

    Args:
        conv: layers from image to map, one after the other.
        fc_layers: fc6, which takes the map, pooled to a grid and flattened (channels, rows,
            columns), and fc7, which takes fc6's output; None for networks that average the map.
        fc6_grid: side of that grid; 1 where there is no fc6.
        pool: kernel and stride of the published last pooling, which `conv` leaves out.
        input_px: side of the square inputs that the network was made for.
        mean: of each of R, G, B, for pixels in [0, 1].
        std: likewise.
        channels: of the map; only where there is no fc6.
        path: layers that reach farthest, where `conv` is no simple row of them.

    Attributes:
        auxiliary: place in `conv` and channels of each inner map that a classifier of its own
            reads in training (GoogLeNet's).
        pretrained: whether weights were loaded; without, a detector must learn them first.
        fc_pretrained: whether they were for fc6 and fc7 too.
        spare: fc6 of a network of ours that reads other features, and the last layer of a
            published classifier, for whoever can use them.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        conv: nn.Sequential,
        fc_layers: tuple[nn.Linear, nn.Linear] | None,
        fc6_grid: int,
        pool: tuple[int, int] | None,
        input_px: int,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        channels: int = 0,
        path: Sequence[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.conv = conv.to(memory_format=torch.channels_last)  # faster on CPUs and with bf16
        if fc_layers:
            self.fc6, self.fc7 = fc_layers
        self.fc6_grid = fc6_grid
        self.input_px = input_px
        self.path = tuple(path) if path is not None else tuple(conv)
        self.channels = fc_layers[0].in_features // fc6_grid**2 if fc_layers else channels
        self.pool = pool
        self.auxiliary: tuple[tuple[int, int], ...] = ()
        self.pretrained = False
        self.fc_pretrained = False
        self.spare: dict[str, Tensor] = {}
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def give_fc_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Hand fc6 and fc7 over to a detector's head: from then on they are not of the backbone.

        Raises:
            UserError: the network has none.
        """
        if not hasattr(self, "fc6"):
            raise UserError(
                "this backbone has no fully connected layers to score windows with: choose one of "
                "zf5, alexnet, caffenet, vgg16, overfeat_fast, overfeat_accurate"
            )
        if "fc6.weight" in self.spare and not self.fc_pretrained:
            log.warning(
                "fc6 and fc7 start from random weights: those that were given read %d features, of "
                "another grid or pyramid (model.features)",
                self.spare["fc6.weight"].shape[1],
            )
        fc6, fc7 = self.fc6, self.fc7
        del self.fc6, self.fc7
        return fc6, fc7

    def spare_fc_layers(self, features: int) -> tuple[nn.Linear, nn.Linear] | None:
        """fc6 and fc7 of another network of ours, if its fc6 reads so many features."""
        if "fc6.weight" not in self.spare or self.spare["fc6.weight"].shape[1] != features:
            return None
        return as_linear(self.spare, "fc6"), as_linear(self.spare, "fc7")

    @property
    def field(self) -> ReceptiveField:
        """Stride, size and offset of the map's receptive fields."""
        return receptive_field(self.path)

    def map_side(self, side_px: int) -> int:
        """Cells along a side of the map of an input."""
        for layer in self.path:
            if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                k, s, p = (side(n) for n in (layer.kernel_size, layer.stride, layer.padding))
                up = s - 1 if getattr(layer, "ceil_mode", False) else 0
                side_px = (side_px + 2 * p - k + up) // s + 1
        return side_px

    def refuse_small(self, side_px: int, option: str, cells: int = 1) -> None:
        """Refuse inputs too small for the network.

        Args:
            side_px: of the inputs.
            option: that sets it.
            cells: along a side of the map, that are needed at least.

        Raises:
            UserError: their map has fewer cells; names the option, and the smallest side.
        """
        if self.map_side(side_px) < cells:
            least = side_px + 1
            while self.map_side(least) < cells:
                least += 1
            why = f"level {cells} of the pyramid" if cells > 1 else "this network"
            raise UserError(
                f"{option}={side_px} is too small for {why}: it needs {least} pixels a side"
            )

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, h, w) maps of normalised (B, 3, H, W) images; channels lie last in memory."""
        result: Tensor = self.conv(images.contiguous(memory_format=torch.channels_last))
        return result

    def pool5(self, maps: Tensor) -> Tensor:
        """(B, C, g, g) of (B, C, h, w) maps: what fc6 reads, not flattened.

        Bins that cover the map are the published last pooling where the input is of the published
        size (13 → 6 is 3×3/2, 14 → 7 is 2×2/2), and fit fc6 at any other.
        """
        return F.adaptive_max_pool2d(maps, self.fc6_grid)

    def normalize(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) RGB, uint8 in 0 to 255 or floats in [0, 1] → what the network expects."""
        pixels = images.float() if images.is_floating_point() else images.float() / 255
        return (pixels - self.mean) / self.std


def as_linear(state: dict[str, Tensor], name: str) -> nn.Linear:
    """A fully connected layer of a state dict."""
    weight = state[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
    return layer


def initialize(net: nn.Module, std: float | None = None) -> None:
    """Random weights and no biases.

    Args:
        net: to be initialised.
        std: of the weights; None: He's, with which these networks train from nothing without
            batch norm.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if std is not None:
                nn.init.normal_(module.weight, std=std)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """A number of channels, scaled for small experiments; a multiple of 8.

    >>> scaled(384, 0.25), scaled(384, 1.0)
    (96, 384)
    """
    return max(8, round(channels * width / 8) * 8)
