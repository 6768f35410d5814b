"""What every backbone offers to a detector."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.receptive_field import ReceptiveField, receptive_field


class Backbone(nn.Module):
    """Convolutions, the two fully connected layers behind them, and how to feed them.

    Args:
        conv: layers from image to map, one after the other.
        fc6: takes the map, pooled to a grid and flattened (channels, rows, columns).
        fc7: takes fc6's output.
        fc6_grid: side of that grid.
        input_px: side of the square inputs that the network was made for.
        mean: of each of R, G, B, for pixels in [0, 1].
        std: likewise.

    Attributes:
        channels: of the map.
        pretrained: whether weights were loaded; without, a detector must learn them first.
        fc_pretrained: whether they were for fc6 and fc7 too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        conv: nn.Sequential,
        fc6: nn.Linear,
        fc7: nn.Linear,
        fc6_grid: int,
        input_px: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.conv = conv.to(memory_format=torch.channels_last)  # faster on CPUs and with bf16
        self.fc6 = fc6
        self.fc7 = fc7
        self.fc6_grid = fc6_grid
        self.input_px = input_px
        self.channels = fc6.in_features // fc6_grid**2
        self.pretrained = False
        self.fc_pretrained = False
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def give_fc_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Hand fc6 and fc7 over to a detector's head: from then on they are not of the backbone."""
        fc6, fc7 = self.fc6, self.fc7
        del self.fc6, self.fc7
        return fc6, fc7

    @property
    def field(self) -> ReceptiveField:
        """Stride, size and offset of the map's receptive fields."""
        return receptive_field(self.conv)

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


def initialize(net: nn.Module) -> None:
    """He's initialisation, with which these networks train from nothing without batch norm."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def scaled(channels: int, width: float) -> int:
    """A number of channels, scaled for small experiments; a multiple of 8.

    >>> scaled(384, 0.25), scaled(384, 1.0)
    (96, 384)
    """
    return max(8, round(channels * width / 8) * 8)
