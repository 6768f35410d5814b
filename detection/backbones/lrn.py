"""Local response normalisation, in the two forms of the papers' code.

Written out with its gradient: composed of PyTorch's own operations (`nn.LocalResponseNorm` too) it
takes three times as long as all convolutions of ZF-5 together, for it reads and writes the two
largest maps of the network some thirty times.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BETA = 0.75  # the power, the same in all papers here


class ChannelLRN(nn.Module):
    """x / (k + alpha mean of x² over `size` neighbouring channels)^0.75.

    The same numbers as `nn.LocalResponseNorm` (which divides alpha by the size, as Caffe does).

    Args:
        size: channels in a window, odd.
        alpha: as in the paper.
        k: as in the paper.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, k: float = 1.0) -> None:
        super().__init__()
        self.size, self.alpha, self.k = size, alpha, k

    def extra_repr(self) -> str:
        """The settings, for the names of caches."""
        return f"{self.size}, alpha={self.alpha}, k={self.k}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        channel = torch.arange(x.shape[1], device=x.device)
        near = (channel[:, None] - channel).abs() <= self.size // 2
        window = near[:, :, None, None].to(x.dtype) / self.size  # a 1×1 convolution
        return normalize(x, window, 1, self.alpha, self.k)


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

    def extra_repr(self) -> str:
        """The settings, for the names of caches."""
        return f"{self.size}, alpha={self.alpha}"

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → the same shape."""
        window = x.new_full((x.shape[1], 1, self.size, self.size), 1 / self.size**2)
        return normalize(x, window, x.shape[1], self.alpha, 1.0)


def normalize(x: Tensor, window: Tensor, groups: int, alpha: float, k: float) -> Tensor:
    """X / (k + alpha · window ∗ x²)^0.75; the window is symmetric."""
    result: Tensor = Normalize.apply(x, window, groups, alpha, k)  # type: ignore[no-untyped-call]
    return result


class Normalize(torch.autograd.Function):
    """y = x s^-β with s = k + α w∗x², and dx = s^-β g - 2αβ x · w∗(g y / s)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: Tensor, groups: int, alpha: float, k: float) -> Tensor:
        """See the class."""
        kind = "cpu" if x.is_meta else x.device.type
        with torch.autocast(kind, enabled=False):  # it would turn parts into float32
            return Normalize.compute(ctx, x, window, groups, alpha, k)

    @staticmethod
    def compute(ctx: Any, x: Tensor, window: Tensor, groups: int, alpha: float, k: float) -> Tensor:
        """All of it in the type of x."""
        scale = convolve(x * x, window, groups).mul_(alpha).add_(k)
        root = scale.rsqrt()
        factor = root.sqrt().mul_(root)  # scale^-0.75, by roots: faster than a power
        ctx.save_for_backward(x, window, scale, factor)
        ctx.groups, ctx.alpha = groups, alpha
        return x * factor

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        """See the class."""
        x, window, scale, factor = ctx.saved_tensors
        direct = gradient * factor
        through = convolve((direct * x).div_(scale), window, ctx.groups)
        return direct.addcmul_(x, through, value=-2 * ctx.alpha * BETA), None, None, None, None


def convolve(x: Tensor, window: Tensor, groups: int) -> Tensor:
    """The weighted sum over each window."""
    return F.conv2d(x, window, padding=window.shape[-1] // 2, groups=groups)
