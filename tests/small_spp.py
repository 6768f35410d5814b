"""A small SPP-net classifier."""

from functools import partial

import torch

from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier
from detection.sppnet.image_features import PyramidFeatures

INPUT = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "weights": None}
small = partial(zf5, width=0.05, padding="paper", normalization="channel", input_px=64, **INPUT)


def spp(classes=6, levels=(2, 1), seed=0, side_px=80, views=None):
    """For images of 64 pixels a side."""
    torch.manual_seed(seed)
    features = PyramidFeatures(small(), levels=levels, bins="adaptive")
    return Classifier(features, classes, side_px=side_px, views=views).eval()
