"""AlexNet as torchvision has it ("one weird trick": one column, no normalisation)."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import AlexNet_Weights

from detection.backbones.backbone import Backbone, Preprocessing, scaled
from detection.backbones.head import initialize
from detection.backbones.weights import Published, load_weights

FC6_GRID = 6  # side of the map after the last pooling


def alexnet(
    *,
    weights: str | None,
    width: float,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """64 11×11/4, 192 5×5, 384, 256 and 256 3×3, without the last pooling.

    Args:
        weights: "imagenet" (torchvision's), a path, or None for random ones.
        width: factor on all numbers of channels.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    c1, c2, c3, c4, c5 = (scaled(c, width) for c in (64, 192, 384, 256, 256))
    conv = nn.Sequential(
        nn.Conv2d(3, c1, 11, stride=4, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c1, c2, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c4, c5, 3, padding=1),
        nn.ReLU(inplace=True),
    )
    hidden = scaled(4096, width)
    fc6, fc7 = nn.Linear(c5 * FC6_GRID**2, hidden), nn.Linear(hidden, hidden)
    backbone = Backbone(conv, (fc6, fc7), FC6_GRID, (3, 2), Preprocessing(input_px, mean, std))
    initialize([conv, fc6, fc7])
    published = Published(
        "alexnet",
        AlexNet_Weights.IMAGENET1K_V1,
        renaming={"features.": "conv.", "classifier.1.": "fc6.", "classifier.4.": "fc7."},
        classifier="classifier.6.",
    )
    return load_weights(backbone, weights, published)
