"""VGG-16 (configuration D) as torchvision has it."""

from collections.abc import Sequence

from torch import nn
from torchvision.models import VGG16_Weights

from detection.backbones.backbone import Backbone, Preprocessing, scaled
from detection.backbones.caffe_weights import CaffeNames
from detection.backbones.head import initialize
from detection.backbones.weights import Published, load_weights

CAFFE_LAYERS = [f"conv{b}_{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in
                range(1, count + 1)]  # fmt: skip
CAFFE_MEAN = (123.68, 116.779, 103.939)  # rcnn, branch vgg-verydeep: rcnn_create_model.m
FC6_GRID = 7  # side of the map after the last pooling
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
        std: of R, G, B in [0, 1].
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
    backbone = Backbone(conv, (fc6, fc7), FC6_GRID, (2, 2), Preprocessing(input_px, mean, std))
    initialize([conv, fc6, fc7])
    published = Published(
        "vgg16",
        VGG16_Weights.IMAGENET1K_V1,
        renaming={"features.": "conv.", "classifier.0.": "fc6.", "classifier.3.": "fc7."},
        classifier="classifier.6.",
        caffe=CaffeNames(CAFFE_LAYERS, CAFFE_MEAN),
    )
    return load_weights(backbone, weights, published)
