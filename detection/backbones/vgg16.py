"""VGG-16 (configuration D) as torchvision has it."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import VGG16_Weights

from detection.backbones.backbone import Backbone, initialize, scaled
from detection.backbones.weights import load_weights

FC6_GRID = 7  # side of the map behind the last pooling
BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))  # channels, convolutions


def vgg16(
    *,
    weights: str | None,
    width: float,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """Thirteen 3×3 convolutions in five blocks, without the last pooling.

    Args:
        weights: "imagenet" (torchvision's), a path, or None for random ones.
        width: factor on all numbers of channels.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: likewise.
    """
    layers: list[nn.Module] = []
    before = 3
    for channels, count in BLOCKS:
        for _ in range(count):
            after = scaled(channels, width)
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True)]
            before = after
        layers.append(nn.MaxPool2d(2, 2))
    hidden = scaled(4096, width)
    fc6, fc7 = nn.Linear(before * FC6_GRID**2, hidden), nn.Linear(hidden, hidden)
    conv = nn.Sequential(*layers[:-1])
    backbone = Backbone(conv, (fc6, fc7), FC6_GRID, (2, 2), input_px, mean, std)
    initialize(backbone)
    load_weights(backbone, "vgg16", weights, VGG16_Weights.IMAGENET1K_V1)
    return backbone
