"""Caffe's layers → a backbone's: names, shapes, BGR → RGB, and the pixels' mean and scale."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.caffemodel import read_caffemodel
from detection.errors import UserError

log = logging.getLogger(__name__)

FIVE = tuple(f"conv{n}" for n in range(1, 6))
THIRTEEN = tuple(f"conv{b}_{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in
                 range(1, count + 1))  # fmt: skip
CONVOLUTIONS = {"caffenet": FIVE, "zf5": FIVE, "vgg16": THIRTEEN}
# Means of R, G, B that published weights subtract from pixels of 0 to 255.
ILSVRC_MEAN = (122.67891434, 116.66876762, 104.00698793)  # mean of ilsvrc_2012_mean.npy
PIXEL_MEANS = {
    "caffenet": ILSVRC_MEAN,
    "zf5": (128.0, 128.0, 128.0),  # SPP_net: caffe_anysize_test.m
    "vgg16": (123.68, 116.779, 103.939),  # rcnn, branch vgg-verydeep: rcnn_create_model.m
}


def fill_from_caffe(backbone: Backbone, name: str, path: Path) -> None:
    """Load a `.caffemodel` into a backbone, and make the backbone normalise pixels to suit it.

    Args:
        backbone: convolutions must all be in the file; fc6 and fc7 are taken where fc6 reads as
            many features as ours (SPP-net's reads a pyramid).
        name: "caffenet", "zf5" or "vgg16".
        path: of the file.

    Raises:
        UserError: a layer is missing or of another shape; names the layer and both shapes.
    """
    layers = read_caffemodel(path)
    refuse_other_network(name, layers, path)
    has_fc = all(layers.get(fc) for fc in ("fc6", "fc7"))
    takes_fc = has_fc and layers["fc6"][0].shape[-1] == backbone.fc6.in_features
    if not takes_fc:
        log.warning("%s: convolutions only; fc6 and fc7 start from random weights", path)
    convolutions = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    wanted: list[tuple[str, nn.Conv2d | nn.Linear]] = [
        *zip(CONVOLUTIONS[name], convolutions, strict=True),
        *([("fc6", backbone.fc6), ("fc7", backbone.fc7)] if takes_fc else []),
    ]
    for layer, module in wanted:
        copy_layer(layer, layers.get(layer), module, path)
    unused = sorted({k for k, blobs in layers.items() if blobs} - {layer for layer, _ in wanted})
    log.info("%s: %d layers read, not used: %s", path, len(wanted), ", ".join(unused) or "none")
    backbone.pretrained, backbone.fc_pretrained = True, takes_fc
    with torch.no_grad():
        first = convolutions[0].weight
        first.copy_(first.flip(1))  # BGR → RGB
        first.mul_(255 * backbone.std.view(1, 3, 1, 1))  # pixels are divided by 255 and std
        backbone.mean.copy_(torch.tensor(PIXEL_MEANS[name]).view(3, 1, 1) / 255)


def refuse_other_network(name: str, layers: dict[str, list[Tensor]], path: Path) -> None:
    """Refuse what cannot be told by shapes."""
    if name not in CONVOLUTIONS:
        raise UserError(
            f"backbone.weights={path}: backbone={name} is torchvision's, for which Caffe has no "
            f"weights; choose one of {', '.join(CONVOLUTIONS)}"
        )
    order = [layer for layer in layers if layer in ("norm1", "pool1")]
    if name == "caffenet" and order == ["norm1", "pool1"]:
        raise UserError(
            f"backbone.weights={path} normalises before it pools: it is AlexNet, not CaffeNet"
        )


def copy_layer(
    name: str, blobs: list[Tensor] | None, module: nn.Conv2d | nn.Linear, path: Path
) -> None:
    """One layer's weights and bias; old files hold matrices as (1, 1, rows, columns)."""
    if blobs is None or len(blobs) != 2:
        raise UserError(
            f"backbone.weights={path} has no layer {name} with weights and bias: it is of another "
            "network; choose the backbone= that it is for"
        )
    for blob, parameter in zip(blobs, module.parameters(), strict=True):
        shape = list(blob.shape)
        while len(shape) > parameter.dim() and shape[0] == 1:
            shape = shape[1:]
        if shape != list(parameter.shape):
            raise UserError(
                f"backbone.weights={path}: layer {name} is {tuple(shape)}, but this network has "
                f"{tuple(parameter.shape)}; choose the backbone (and backbone.width) it is for"
            )
        with torch.no_grad():
            parameter.copy_(blob.reshape(shape))
