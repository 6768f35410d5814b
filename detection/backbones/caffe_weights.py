"""Caffe's layers → a backbone's: names, shapes, BGR → RGB, and the pixels' mean and scale."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone, LoadedWeights
from detection.backbones.caffemodel import CaffeLayer, read_caffemodel
from detection.errors import UserError

log = logging.getLogger(__name__)

FIVE_LAYERS = [f"conv{n}" for n in range(1, 6)]
PYRAMID = (6, 3, 2, 1)  # levels of SPP-net's, in the order of conf/model/sppnet.yaml
PYRAMID_BINS = sum(n * n for n in PYRAMID)

Check = Callable[[Path, Mapping[str, CaffeLayer], Backbone], None]


@dataclass(frozen=True)
class CaffeNames:
    """A network's names and inputs in `.caffemodel` files.

    Attributes:
        convolutions: names, in the network's order.
        mean: of R, G, B, that the weights subtract from pixels of 0 to 255.
        check: raises where a file of the right shapes is of another network; None: nothing to do.
        remedy: what to do where a layer has another padding.
    """

    convolutions: Sequence[str]
    mean: tuple[float, float, float]
    check: Check | None = None
    remedy: str = "choose the backbone= that it is for"


def read_caffe(path: Path, backbone: Backbone, names: CaffeNames) -> LoadedWeights:
    """The weights in a `.caffemodel`, for inputs as the backbone normalises them.

    All convolutions must be in the file; fc6 and fc7 are taken where fc6 reads as many features
    as ours, or SPP-net's pyramid.

    Args:
        path: of the file.
        backbone: that they are for; it is only looked at.
        names: of this network's layers.

    Raises:
        UserError: a layer is missing or of another shape; names the layer and both shapes.
    """
    layers = read_caffemodel(path)
    places = [n for n, m in enumerate(backbone.conv) if isinstance(m, nn.Conv2d)]
    state: dict[str, Tensor] = {}
    for name, place in zip(names.convolutions, places, strict=True):
        module = backbone.conv[place]
        assert isinstance(module, nn.Conv2d)
        state |= layer_of(name, layers.get(name), shapes(module), path, f"conv.{place}")
    state |= fully_connected_of(layers, backbone, path)
    check_padding(path, layers, backbone, names)
    if names.check:
        names.check(path, layers, backbone)
    read = [*names.convolutions, *(fc for fc in ("fc6", "fc7") if f"{fc}.weight" in state)]
    unused = sorted({k for k, layer in layers.items() if layer.blobs} - set(read))
    log.info("%s: %d layers read, not used: %s", path, len(read), ", ".join(unused) or "none")
    first = state[f"conv.{places[0]}.weight"].flip(1)  # BGR → RGB
    scale = 255 * backbone.std.view(1, 3, 1, 1)  # our pixels are divided by 255 and std
    state[f"conv.{places[0]}.weight"] = first * scale
    return LoadedWeights(state, str(path), mean=torch.tensor(names.mean) / 255)


def fully_connected_of(
    layers: dict[str, CaffeLayer], backbone: Backbone, path: Path
) -> dict[str, Tensor]:
    """fc6 and fc7 of a file, if they fit the backbone's grid or SPP-net's pyramid."""
    own = backbone.grid_fc
    assert own is not None  # networks without fc6 have no Caffe files here
    inputs, hidden = fc6_inputs(layers), own.fc6.out_features
    if inputs not in (own.fc6.in_features, backbone.channels * PYRAMID_BINS):
        log.warning("%s: convolutions only; fc6 and fc7 start from random weights", path)
        return {}
    fc6 = layer_of("fc6", layers.get("fc6"), [(hidden, inputs), (hidden,)], path, "fc6")
    fc7 = layer_of("fc7", layers.get("fc7"), shapes(own.fc7), path, "fc7")
    if inputs != own.fc6.in_features:
        fc6["fc6.weight"] = in_our_order(fc6["fc6.weight"], backbone.channels)
    return fc6 | fc7


def fc6_inputs(layers: dict[str, CaffeLayer]) -> int:
    """Features that a file's fc6 reads; 0 where it has no fc6 and fc7."""
    blobs = [layers[fc].blobs if fc in layers else [] for fc in ("fc6", "fc7")]
    return int(blobs[0][0].shape[-1]) if all(blobs) else 0


def in_our_order(weight: Tensor, channels: int) -> Tensor:
    """fc6 of SPP-net's file, in the order of our pyramid.

    Theirs reads levels 1, 2, 3, 6, and in each all bins of the first channel, then of the next
    (spm_pool_caffe_mex.cpp); ours 6, 3, 2, 1, and all channels of the first bin, then of the next.
    """
    found = []
    for level in PYRAMID:
        start = channels * sum(n * n for n in PYRAMID if n < level)
        block = weight[:, start : start + channels * level**2]
        found.append(block.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1))
    return torch.cat(found, dim=1)


def check_padding(
    path: Path, layers: Mapping[str, CaffeLayer], backbone: Backbone, names: CaffeNames
) -> None:
    """Check what shapes do not show: zeros about the inputs of convolutions.

    Raises:
        UserError: the file's network pads otherwise than ours.
    """
    convolutions = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    for name, module in zip(names.convolutions, convolutions, strict=True):
        pad = layers[name].pad
        if pad is not None and (pad, pad) != module.padding:
            raise UserError(
                f"backbone.weights={path}: layer {name} has a padding of {pad}, this network of "
                f"{module.padding[0]}; {names.remedy}"
            )


def shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """Of a layer's weights and bias."""
    return [tuple(parameter.shape) for parameter in module.parameters()]


def layer_of(
    name: str, found: CaffeLayer | None, wanted: Sequence[tuple[int, ...]], path: Path, ours: str
) -> dict[str, Tensor]:
    """A layer's weights and bias under our name; old files hold (1, 1, rows, columns)."""
    if found is None or len(found.blobs) != 2:
        raise UserError(
            f"backbone.weights={path} has no layer {name} with weights and bias: it is of another "
            "network; choose the backbone= that it is for"
        )
    state = {}
    for part, blob, size in zip(("weight", "bias"), found.blobs, wanted, strict=True):
        shape = list(blob.shape)
        while len(shape) > len(size) and shape[0] == 1:
            shape = shape[1:]
        if tuple(shape) != size:
            raise UserError(
                f"backbone.weights={path}: layer {name} is {tuple(shape)}, but this network has "
                f"{size}; choose the backbone (and backbone.width) it is for"
            )
        state[f"{ours}.{part}"] = blob.reshape(shape)
    return state
