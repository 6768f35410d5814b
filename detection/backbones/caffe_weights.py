"""Caffe's layers → a backbone's: names, shapes, BGR → RGB, and the pixels' mean and scale."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.caffemodel import CaffeLayer, read_caffemodel
from detection.backbones.lrn import SpatialLRN
from detection.errors import UserError

log = logging.getLogger(__name__)

FIVE = tuple(f"conv{n}" for n in range(1, 6))
THIRTEEN = tuple(f"conv{b}_{n}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for n in
                 range(1, count + 1))  # fmt: skip
CONVOLUTIONS = {"caffenet": FIVE, "zf5": FIVE, "vgg16": THIRTEEN}
PYRAMID = (6, 3, 2, 1)  # levels of SPP-net's, in the order of conf/model/sppnet.yaml
PYRAMID_BINS = sum(n * n for n in PYRAMID)
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
            many features as ours, or SPP-net's pyramid (they are the backbone's spare then).
        name: "caffenet", "zf5" or "vgg16".
        path: of the file.

    Raises:
        UserError: a layer is missing or of another shape; names the layer and both shapes.
    """
    if name not in CONVOLUTIONS:
        raise UserError(
            f"backbone.weights={path}: backbone={name} is torchvision's, for which Caffe has no "
            f"weights; choose one of {', '.join(CONVOLUTIONS)}"
        )
    layers = read_caffemodel(path)
    convolutions = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    wanted: list[tuple[str, nn.Conv2d | nn.Linear]] = [
        *zip(CONVOLUTIONS[name], convolutions, strict=True)
    ]
    inputs = fc6_inputs(layers)
    takes_fc, of_pyramid = (
        inputs == n for n in (backbone.fc6.in_features, backbone.channels * PYRAMID_BINS)
    )
    if takes_fc:
        wanted += [("fc6", backbone.fc6), ("fc7", backbone.fc7)]
    elif of_pyramid:
        sides = (inputs, backbone.fc6.out_features, backbone.fc7.out_features)
        fc6, fc7 = nn.Linear(*sides[:2]), nn.Linear(*sides[1:])
        wanted += [("fc6", fc6), ("fc7", fc7)]
    else:
        log.warning("%s: convolutions only; fc6 and fc7 start from random weights", path)
    for layer, module in wanted:
        copy_layer(layer, layers.get(layer), module, path)
    refuse_other_network(backbone, name, layers, path)
    unused = sorted({k for k, layer in layers.items() if layer.blobs} - {k for k, _ in wanted})
    log.info("%s: %d layers read, not used: %s", path, len(wanted), ", ".join(unused) or "none")
    if of_pyramid:
        backbone.spare |= spare_of_pyramid(fc6, fc7, backbone.channels)
    backbone.pretrained, backbone.fc_pretrained = True, takes_fc
    with torch.no_grad():
        first = convolutions[0].weight
        first.copy_(first.flip(1))  # BGR → RGB
        first.mul_(255 * backbone.std.view(1, 3, 1, 1))  # pixels are divided by 255 and std
        backbone.mean.copy_(torch.tensor(PIXEL_MEANS[name]).view(3, 1, 1) / 255)


def fc6_inputs(layers: dict[str, CaffeLayer]) -> int:
    """Features that a file's fc6 reads; 0 where it has no fc6 and fc7."""
    blobs = [layers[fc].blobs if fc in layers else [] for fc in ("fc6", "fc7")]
    return int(blobs[0][0].shape[-1]) if all(blobs) else 0


def spare_of_pyramid(fc6: nn.Linear, fc7: nn.Linear, channels: int) -> dict[str, Tensor]:
    """fc6 and fc7 of SPP-net's file, in the order of our pyramid.

    Theirs reads levels 1, 2, 3, 6, and in each all bins of the first channel, then of the next
    (spm_pool_caffe_mex.cpp); ours 6, 3, 2, 1, and all channels of the first bin, then of the next.
    """
    found = []
    for level in PYRAMID:
        start = channels * sum(n * n for n in PYRAMID if n < level)
        block = fc6.weight.detach()[:, start : start + channels * level**2]
        found.append(block.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1))
    return {
        "fc6.weight": torch.cat(found, dim=1),
        "fc6.bias": fc6.bias.detach().clone(),
        "fc7.weight": fc7.weight.detach().clone(),
        "fc7.bias": fc7.bias.detach().clone(),
    }


def refuse_other_network(
    backbone: Backbone, name: str, layers: dict[str, CaffeLayer], path: Path
) -> None:
    """Refuse what cannot be told by shapes: other padding, another order, another normalisation."""
    remedy = "choose the backbone= that it is for"
    if name == "zf5":
        remedy = (
            "SPP-net's released ZF-5 needs backbone.padding=original "
            "backbone.normalization=spatial (its prototxt differs from the paper)"
        )
    convolutions = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    for layer, module in zip(CONVOLUTIONS[name], convolutions, strict=True):
        pad = layers[layer].pad
        if pad is not None and (pad, pad) != module.padding:
            raise UserError(
                f"backbone.weights={path}: layer {layer} has a padding of {pad}, this network of "
                f"{module.padding[0]}; {remedy}"
            )
    order = [layer for layer in layers if layer in ("norm1", "pool1")]
    if name == "caffenet" and order == ["norm1", "pool1"]:
        raise UserError(
            f"backbone.weights={path} normalises before it pools: it is AlexNet, not CaffeNet"
        )
    spatial = any(isinstance(m, SpatialLRN) for m in backbone.conv)
    if name == "zf5" and (convolutions[1].padding != (0, 0) or not spatial):
        raise UserError(f"backbone.weights={path}: {remedy}")


def copy_layer(
    name: str, found: CaffeLayer | None, module: nn.Conv2d | nn.Linear, path: Path
) -> None:
    """One layer's weights and bias; old files hold matrices as (1, 1, rows, columns)."""
    if found is None or len(found.blobs) != 2:
        raise UserError(
            f"backbone.weights={path} has no layer {name} with weights and bias: it is of another "
            "network; choose the backbone= that it is for"
        )
    for blob, parameter in zip(found.blobs, module.parameters(), strict=True):
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
