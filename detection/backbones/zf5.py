"""ZF-5: the "fast" network of Zeiler and Fergus as SPP-net uses it (SPP-net, table 1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from torch import nn

from detection.backbones.backbone import Backbone, Preprocessing, scaled
from detection.backbones.caffe_weights import FIVE_LAYERS, CaffeNames
from detection.backbones.caffemodel import CaffeLayer
from detection.backbones.head import initialize
from detection.backbones.lrn import ChannelLRN, SpatialLRN
from detection.backbones.weights import Published, load_weights
from detection.errors import UserError

SPPNET_MEAN = (128.0, 128.0, 128.0)  # SPP_net: caffe_anysize_test.m
SPPNET_REMEDY = (
    "SPP-net's released ZF-5 needs backbone.padding=original backbone.normalization=spatial (its "
    "prototxt differs from the paper)"
)
FC6_GRID = 6  # side of the map after the last pooling of the network without SPP


def zf5(
    *,
    weights: str | None,
    width: float,
    padding: Literal["paper", "original"],
    normalization: Literal["channel", "spatial"],
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """96 7×7/2, 256 5×5/2, 384, 384 and 256 3×3, with normalisation and pooling after two.

    Args:
        weights: a path, or None for random ones.
        width: factor on all numbers of channels.
        padding: of conv2: "paper" 1, which gives table 1's maps 55, 27, 13; "original" 0, as in the
            released prototxt. Both give 13×13 at 224 and 10×10 at 180.
        normalization: over neighbouring channels, or within each as in the released prototxt.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    c1, c2, c3, c4, c5 = (scaled(c, width) for c in (96, 256, 384, 384, 256))
    norm = ChannelLRN if normalization == "channel" else SpatialLRN
    conv = nn.Sequential(
        nn.Conv2d(3, c1, 7, stride=2, padding=1),
        nn.ReLU(inplace=True),
        norm(),
        nn.MaxPool2d(3, 2, ceil_mode=True),  # Caffe rounds up
        nn.Conv2d(c1, c2, 5, stride=2, padding=1 if padding == "paper" else 0),
        nn.ReLU(inplace=True),
        norm(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
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
    caffe = CaffeNames(FIVE_LAYERS, SPPNET_MEAN, check=check_geometry, remedy=SPPNET_REMEDY)
    published = Published("zf5", caffe=caffe)
    return load_weights(backbone, weights, published)


def check_geometry(path: Path, layers: Mapping[str, CaffeLayer], backbone: Backbone) -> None:
    """Check what shapes do not tell: the released network's padding and normalisation.

    Raises:
        UserError: ours has another geometry; says how to get it.
    """
    convolutions = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    spatial = any(isinstance(m, SpatialLRN) for m in backbone.conv)
    if convolutions[1].padding != (0, 0) or not spatial:
        raise UserError(f"backbone.weights={path}: {SPPNET_REMEDY}")
