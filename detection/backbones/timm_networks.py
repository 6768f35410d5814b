"""Any network of timm that has maps of stride 16 or 32 (the extra `timm`)."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone, LoadedWeights, Preprocessing
from detection.backbones.weights import BACKBONE_PREFIX, of_model, read_state
from detection.errors import UserError

# of the strip of noise by which cells are placed
CELLS, HEIGHT_CELLS, ASKED = 32, 2, 3
NEAR_CELLS, SHIFTS = 6, 20


def timm_network(
    *,
    name: str,
    stride: Literal[16, 32],
    weights: str | None,
    input_px: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Backbone:
    """The maps of one of timm's networks.

    Args:
        name: in timm, such as "resnet18" or "convnext_tiny.fb_in1k".
        stride: of the map, 16 or 32.
        weights: "imagenet" (the network's own, from timm's hub: needs a network, or its cache),
            a file in timm's names or ours, or None for random ones.
        input_px: side of the square inputs that it is made for; None: as timm has it.
        mean: of R, G, B in [0, 1]; None: as timm has it.
        std: of R, G, B in [0, 1]; None: as timm has it.

    Raises:
        UserError: timm is not installed, has no such network or no such map, cannot reach the
            weights, or the network takes inputs of one size only.
    """
    timm = imported()
    bare, _, tag = name.partition(".")
    if not timm.is_model(bare) or (tag and name not in timm.list_pretrained(f"{bare}.*")):
        like = ", ".join(timm.list_pretrained(f"{bare}*")[:6])
        raise UserError(
            f"backbone.name={name}: timm {timm.__version__} has no such network"
            f"{f'; it has {like}' if like else ''}"
        )
    net = features_of(timm, name, stride, weights == "imagenet")
    published = net.pretrained_cfg
    inputs = Preprocessing(
        input_px or int(published["input_size"][-1]), mean or published["mean"],
        std or published["std"],
    )  # fmt: skip
    conv = nn.Sequential(LastMap(net))
    channels, path = geometry(name, stride)
    backbone = Backbone(conv, None, 1, None, inputs, channels=channels, path=path)
    if weights == "imagenet":
        backbone.pretrained = True
    elif weights is not None:
        backbone.load(read(backbone, weights))
    return backbone


def imported() -> Any:
    """The package timm.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise UserError(
            "backbone=timm needs the package timm: pip install 'detection[timm]'"
        ) from None
    return timm


class LastMap(nn.Module):
    """The one map, channels first, of a network of timm's with `features_only`."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.channels: int = net.feature_info.channels()[-1]  # type: ignore[union-attr,operator]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) → (B, C, h, w)."""
        maps: Tensor = self.net(images)[-1]
        # some transformers keep channels last
        return maps if maps.shape[1] == self.channels else maps.permute(0, 3, 1, 2)


def features_of(timm: Any, name: str, stride: int, pretrained: bool) -> Any:
    """A network of timm's that gives one map, the last of some stride.

    Raises:
        UserError: it has none, or its weights are out of reach.
    """
    strides = strides_of(name)
    if stride not in strides:
        raise UserError(
            f"backbone.stride={stride}: {name} has maps of stride {', '.join(map(str, strides))}"
        )
    last = max(index for index, found in enumerate(strides) if found == stride)
    try:
        return timm.create_model(
            name, features_only=True, out_indices=(last,), pretrained=pretrained
        )
    except Exception as error:  # whatever the hub's client raises, of which there is much
        if not pretrained:
            raise
        raise UserError(
            f"backbone.weights=imagenet: the weights of {name} cannot be had from timm's hub "
            f"({type(error).__name__}: {str(error).splitlines()[0][:160]}); without a network "
            "give a file, backbone.weights=FILE, or choose backbone=efficientnet_lite0, whose "
            "weights are installed"
        ) from None


@cache
def strides_of(name: str) -> list[int]:
    """Of the maps that a network gives, which only the network itself knows.

    Raises:
        UserError: it gives none.
    """
    try:
        strides: list[int] = (
            imported().create_model(name, features_only=True).feature_info.reduction()
        )
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"backbone.name={name} gives no maps (features_only): {error}") from None
    return strides


@cache
def geometry(name: str, stride: int) -> tuple[int, list[nn.Module]]:
    """Channels of a network's map, and layers, never run, of its geometry.

    Measured on random weights, always the same: where a cell looks must not depend on what a
    network has learnt, or a model would be another one when its weights are loaded.

    Raises:
        UserError: it takes inputs of one size only, or its maps are of other sizes than its
            stride says.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(0)
        conv = nn.Sequential(LastMap(features_of(imported(), name, stride, False))).eval()
        whole, uneven = (map_at(conv, name, side) for side in (7 * stride, 7 * stride + 1))
        cells = uneven.shape[3]  # of a side that no stride divides: is a cell begun a cell?
        if whole.shape[3] != 7 or cells not in (7, 8):
            raise UserError(f"backbone.name={name}: its map is not of stride {stride}")
        centre = first_centre(conv, stride)
    left = (stride - 1) / 2 - round(2 * centre) / 2  # to half a pixel
    block = nn.MaxPool2d(stride, stride, ceil_mode=cells == 8)
    return int(whole.shape[1]), [nn.ZeroPad2d((left, -left, left, -left)), block]  # type: ignore[arg-type]


@torch.no_grad()
def map_at(conv: nn.Module, name: str, side_px: int) -> Tensor:
    """The map of a black square.

    Raises:
        UserError: the network does not take this size.
    """
    try:
        maps: Tensor = conv(torch.zeros(1, 3, side_px, side_px))
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"backbone.name={name} does not take inputs of {side_px}×{side_px}, and detectors "
            f"need maps of any size ({str(error).splitlines()[0][:120]})"
        ) from None
    return maps


def first_centre(conv: nn.Module, stride: int) -> float:
    """Where in the image the first cell of a row looks: the pixel coordinate of its centre.

    Measured, for the layers of any network cannot be followed: the centre of gravity of the
    gradient of cells amid a strip of noise. A network whose cells all see the whole image
    (squeeze-and-excitation, attention) has a gradient everywhere, which is taken off.
    """
    strip = torch.randn(1, 3, HEIGHT_CELLS * stride, CELLS * stride).requires_grad_()
    columns = torch.arange(CELLS * stride, dtype=torch.double)
    centres = []
    with torch.enable_grad():
        maps = conv(strip)
        for cell in range(CELLS // 2 - 1, CELLS // 2 - 1 + ASKED):
            (gradient,) = torch.autograd.grad(maps[..., cell].sum(), strip, retain_graph=True)
            weight = gradient.abs().sum(dim=(0, 1, 2)).double()
            weight = (weight - weight.median()).clamp(min=0)
            centre = (cell + 0.5) * stride
            for _ in range(SHIFTS):  # a window about its own centre of gravity: mean shift
                near = weight.where((columns - centre).abs() < NEAR_CELLS * stride, 0.0)
                centre = float((near * columns).sum() / near.sum())
            centres.append(centre - cell * stride)
    return sum(centres) / len(centres)


def read(backbone: Backbone, weights: str) -> LoadedWeights:
    """Weights of a file, in timm's names or ours; of layers after the map none are taken.

    What is missing `Backbone.load` reports.

    Raises:
        UserError: the file cannot be read.
    """
    state = read_state(Path(weights).expanduser())
    if any(key.startswith(BACKBONE_PREFIX) for key in state):
        return LoadedWeights(of_model(state), weights)
    own = {f"conv.{key}" for key in backbone.conv.state_dict()}
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        # what gives maps calls "stages.0" "stages_0", or keeps the whole network as "model"
        names = (key, f"model.{key}", key.replace(".", "_", 1))
        found |= {f"conv.0.net.{n}": value for n in names if f"conv.0.net.{n}" in own}
        if key in own:
            found[key] = value
    return LoadedWeights(found, weights)
