"""Any network of timm that has maps of stride 16 or 32 (the extra `timm`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone, LoadedWeights, Preprocessing
from detection.backbones.weights import BACKBONE_PREFIX, of_model, read_state
from detection.errors import UserError

# of the strip of noise by which cells are placed
CELLS, HEIGHT_CELLS, NOISES = 48, 4, 4
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
    channels = check_maps(conv, name, stride, inputs.input_px)
    path = stand_in(stride, 0.0 if on_meta(conv) else first_centre(conv, stride))
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
    try:
        info = timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"backbone.name={name} gives no maps (features_only): {error}") from None
    strides = info.reduction()
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


def on_meta(module: nn.Module) -> bool:
    """Whether a module has sizes only, and no numbers."""
    return next(module.parameters()).device.type == "meta"


@torch.no_grad()
def check_maps(conv: nn.Module, name: str, stride: int, side_px: int) -> int:
    """The number of channels of a network's map, at two sizes.

    Raises:
        UserError: it takes inputs of one size only, or its maps are of other sizes than its
            stride says.
    """
    device = next(conv.parameters()).device
    conv.eval()
    for height, width in ((side_px, side_px), (2 * stride, 5 * stride)):
        try:
            maps = conv(torch.zeros(1, 3, height, width, device=device))
        except (AssertionError, RuntimeError) as error:
            raise UserError(
                f"backbone.name={name} takes inputs of {side_px}×{side_px} only, and detectors "
                f"need maps of any size ({str(error).splitlines()[0][:120]})"
            ) from None
        if maps.shape[2:] != (-(-height // stride), -(-width // stride)):
            raise UserError(f"backbone.name={name}: its map is not of stride {stride}")
    conv.train()
    return int(maps.shape[1])


def first_centre(conv: nn.Module, stride: int) -> float:
    """Where in the image the first cell of a row looks: the pixel coordinate of its centre.

    Measured, for the layers of any network cannot be followed: the centre of gravity of the
    gradient of cells amid a strip of noise. A network whose cells all see the whole image
    (squeeze-and-excitation, attention) has a gradient everywhere, which is taken off.
    """
    generator = torch.Generator().manual_seed(0)
    size = (NOISES, 3, HEIGHT_CELLS * stride, CELLS * stride)
    device = next(conv.parameters()).device
    strips = torch.randn(size, generator=generator).to(device).requires_grad_()
    conv.eval()
    cells = range(CELLS // 2 - 4, CELLS // 2 + 4)
    columns = torch.arange(CELLS * stride, dtype=torch.double)
    centres = []
    with torch.enable_grad():
        maps = conv(strips)
        for cell in cells:
            (gradient,) = torch.autograd.grad(maps[..., cell].sum(), strips, retain_graph=True)
            weight = gradient.abs().sum(dim=(0, 1, 2)).double().cpu()
            weight = (weight - weight.median()).clamp(min=0)
            centre = (cell + 0.5) * stride
            for _ in range(SHIFTS):  # a window about its own centre of gravity: mean shift
                near = weight.where((columns - centre).abs() < NEAR_CELLS * stride, 0.0)
                centre = float((near * columns).sum() / near.sum())
            centres.append(centre - cell * stride)
    conv.train()
    return sum(centres) / len(centres)


def stand_in(stride: int, centre: float) -> list[nn.Module]:
    """Layers, never run, of the geometry of a network: one cell to each `stride` pixels begun.

    The padding moves the first cell's centre to within half a pixel of where it is.
    """
    left = round((stride - 1) / 2 - centre)
    block = nn.MaxPool2d(stride, stride, ceil_mode=True)
    return [nn.ZeroPad2d((left, -left, left, -left)), block]


def read(backbone: Backbone, weights: str) -> LoadedWeights:
    """Weights of a file, in timm's names or ours; of layers after the map none are taken.

    Raises:
        UserError: the file is of another network (told by `Backbone.load`), or cannot be read.
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
