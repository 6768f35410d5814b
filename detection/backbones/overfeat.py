"""OverFeat's two networks (OverFeat, tables 1 and 3)."""

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from detection.backbones.backbone import Backbone, Preprocessing, scaled
from detection.backbones.head import initialize
from detection.backbones.overfeat_weights import FILE_PREFIX, read_overfeat
from detection.backbones.weights import Published, load_weights


def overfeat_fast(
    *,
    weights: str | None,
    width: float,
    init_std: float | None,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """96 11×11/4, 256 5×5, 512, 1024 and 1024 3×3; pooled 2×2/2 thrice; 3072 and 4096.

    Maps of 28, 12 and 6 at 231 (table 1); without the last pooling. 145,920,872 parameters with
    the classifier of 1,000.

    Args:
        weights: the released `net_weight_0`, a file of ours, or None for random ones.
        width: factor on all numbers of channels.
        init_std: of normal random weights (0.01: 3.1); None: He's.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    c1, c2, c3, c4 = (scaled(c, width) for c in (96, 256, 512, 1024))
    conv = nn.Sequential(
        nn.Conv2d(3, c1, 11, stride=4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(c1, c2, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c4, c4, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    hidden = (scaled(3072, width), scaled(4096, width))
    inputs = Preprocessing(input_px, mean, std)
    return filled(conv, c4, hidden, 6, (2, 2), inputs, weights, init_std)


def overfeat_accurate(
    *,
    weights: str | None,
    width: float,
    init_std: float | None,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """96 7×7/2, 256 7×7, 512, 512, 1024 and 1024 3×3; pooled 3×3/3, 2×2/2, 3×3/3; 4096 and 4096.

    Maps of 36, 15 and 5 at 221 (table 3); without the last pooling. 144,656,488 parameters with
    the classifier of 1,000.

    Args:
        weights: the released `net_weight_1`, a file of ours, or None for random ones.
        width: factor on all numbers of channels.
        init_std: of normal random weights (0.01: 3.1); None: He's.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    c1, c2, c3, c5 = (scaled(c, width) for c in (96, 256, 512, 1024))
    conv = nn.Sequential(
        nn.Conv2d(3, c1, 7, stride=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 3),
        nn.Conv2d(c1, c2, 7),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c5, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c5, c5, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    hidden = (scaled(4096, width), scaled(4096, width))
    inputs = Preprocessing(input_px, mean, std)
    return filled(conv, c5, hidden, 5, (3, 3), inputs, weights, init_std)


def filled(
    conv: nn.Sequential,
    channels: int,
    hidden: tuple[int, int],
    grid: int,
    pool: tuple[int, int],
    inputs: Preprocessing,
    weights: str | None,
    init_std: float | None,
) -> Backbone:
    """A backbone with random or read weights."""
    fc6, fc7 = nn.Linear(channels * grid**2, hidden[0]), nn.Linear(*hidden)
    backbone = Backbone(conv, (fc6, fc7), grid, pool, inputs)
    initialize([conv, fc6, fc7], init_std)
    if weights is not None and Path(weights).name.startswith(FILE_PREFIX):
        backbone.load(read_overfeat(Path(weights).expanduser(), backbone))
        return backbone
    return load_weights(backbone, weights, Published("overfeat"))
