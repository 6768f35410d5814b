"""CaffeNet: AlexNet as Caffe has it, the network of R-CNN's VOC experiments."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from detection.backbones.backbone import Backbone, Preprocessing, scaled
from detection.backbones.caffe_weights import FIVE_LAYERS, CaffeNames
from detection.backbones.caffemodel import CaffeLayer
from detection.backbones.head import initialize
from detection.backbones.lrn import ChannelLRN
from detection.backbones.weights import Published, load_weights
from detection.errors import UserError

ILSVRC_MEAN = (122.67891434, 116.66876762, 104.00698793)  # mean of ilsvrc_2012_mean.npy
FC6_GRID = 6  # side of the map after the last pooling


def caffenet(
    *,
    weights: str | None,
    width: float,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """96 11×11/4, 256 5×5, 384, 384 and 256 3×3; the second, fourth and fifth in two groups.

    Normalisation follows pooling (in AlexNet it goes before). Maps of 55, 27, 13 at 227; without
    the last pooling. caffe: models/bvlc_reference_caffenet.

    Args:
        weights: a `.caffemodel`, a file of ours, or None for random ones.
        width: factor on all numbers of channels.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    c1, c2, c3, c4, c5 = (scaled(c, width) for c in (96, 256, 384, 384, 256))
    conv = nn.Sequential(
        nn.Conv2d(3, c1, 11, stride=4),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        ChannelLRN(),
        nn.Conv2d(c1, c2, 5, padding=2, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        ChannelLRN(),
        nn.Conv2d(c2, c3, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(c3, c4, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
        nn.Conv2d(c4, c5, 3, padding=1, groups=2),
        nn.ReLU(inplace=True),
    )
    hidden = scaled(4096, width)
    fc6, fc7 = nn.Linear(c5 * FC6_GRID**2, hidden), nn.Linear(hidden, hidden)
    backbone = Backbone(conv, (fc6, fc7), FC6_GRID, (3, 2), Preprocessing(input_px, mean, std))
    initialize([conv, fc6, fc7])
    published = Published("caffenet", caffe=CaffeNames(FIVE_LAYERS, ILSVRC_MEAN, check=check_order))
    return load_weights(backbone, weights, published)


def check_order(path: Path, layers: Mapping[str, CaffeLayer], backbone: Backbone) -> None:
    """Check what shapes do not tell: AlexNet normalises before it pools, CaffeNet after.

    Raises:
        UserError: the file is of AlexNet.
    """
    order = [layer for layer in layers if layer in ("norm1", "pool1")]
    if order == ["norm1", "pool1"]:
        raise UserError(
            f"backbone.weights={path} normalises before it pools: it is AlexNet, not CaffeNet"
        )
