"""Local response normalisation, in the two forms of the papers' code."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ChannelLRN(nn.Module):
    """x / (k + alpha mean of x² over `size` neighbouring channels)^0.75.

    The same numbers as `nn.LocalResponseNorm` with beta 0.75 (which divides alpha by the size, as
    Caffe does), without its 3-d pooling and its power: the layer took longer than the convolution
    behind it.

    Args:
        size: channels in a window, odd.
        alpha: as in the paper.
        k: as in the paper.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.k = size, alpha, k

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        half = self.size // 2
        squares = F.pad(x * x, (0, 0, 0, 0, half, half))
        total = squares.narrow(1, 0, x.shape[1])
        for shift in range(1, self.size):
            total = total + squares.narrow(1, shift, x.shape[1])
        return over_power(x, self.k + self.alpha / self.size * total)


class SpatialLRN(nn.Module):
    """x / (1 + alpha mean of x² over size × size pixels of the same channel)^0.75.

    The "within channel" form of the original SPP-net's prototxt. Zeros beyond the border count
    in the mean, as in Caffe.

    Args:
        size: side of the window in pixels, odd.
        alpha: as in the prototxt.
    """

    def __init__(self, size: int = 3, alpha: float = 5e-5) -> None:
        super().__init__()
        self.size, self.alpha = size, alpha

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        mean = F.avg_pool2d(x * x, self.size, stride=1, padding=self.size // 2)
        return over_power(x, 1 + self.alpha * mean)


def over_power(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale^0.75, by roots, which are faster than powers."""
    root = torch.rsqrt(scale)
    return x * root * torch.sqrt(root)
