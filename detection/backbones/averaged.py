"""Networks that average their last map: GoogLeNet and ResNet, as torchvision has them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor, nn
from torchvision.models import (
    GoogLeNet,
    GoogLeNet_Weights,
    ResNet,
    ResNet50_Weights,
    ResNet101_Weights,
    WeightsEnum,
)
from torchvision.models.googlenet import Inception
from torchvision.models.resnet import Bottleneck

from detection.backbones.backbone import Backbone, LoadedWeights, Preprocessing
from detection.backbones.weights import BACKBONE_PREFIX, download, of_model, read_state
from detection.errors import UserError

RESNET_WEIGHTS: dict[tuple[int, ...], WeightsEnum] = {
    (3, 4, 6, 3): ResNet50_Weights.IMAGENET1K_V1,
    (3, 4, 23, 3): ResNet101_Weights.IMAGENET1K_V1,
}
AUXILIARY = (("inception4a", 512), ("inception4d", 528))  # of GoogLeNet, and their channels


def resnet(
    *,
    blocks: Sequence[int],
    stride_on: Literal["3x3", "1x1"],
    weights: str | None,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """ResNet of bottleneck blocks (He et al. 2015): (3, 4, 6, 3) is ResNet-50.

    Args:
        blocks: in each of the four stages.
        stride_on: which convolution of a stage's first block halves the map: "3x3", as in
            torchvision's weights, or "1x1", as in the original's.
        weights: "imagenet" (torchvision's), a file, or None for random ones.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    net = ResNet(Bottleneck, list(blocks))
    if stride_on == "1x1":
        for block in net.modules():
            if isinstance(block, Bottleneck):
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    conv = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2,
                         net.layer3, net.layer4)  # fmt: skip
    inputs = Preprocessing(input_px, mean, std)
    return averaged(conv, net, RESNET_WEIGHTS.get(tuple(blocks)), weights, inputs)


def googlenet(
    *,
    weights: str | None,
    input_px: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Backbone:
    """GoogLeNet (Szegedy et al. 2014) as torchvision has it: with batch norm, 3×3 in place of 5×5.

    In training, classifiers of their own read the maps of inception 4a and 4d (section 5).

    Args:
        weights: "imagenet" (torchvision's), a file, or None for random ones.
        input_px: side of the square inputs that it is made for.
        mean: of R, G, B in [0, 1].
        std: of R, G, B in [0, 1].
    """
    net = GoogLeNet(aux_logits=False, init_weights=False)
    conv = nn.Sequential(*list(net.children())[:-3])  # without average, dropout, classifier
    published = GoogLeNet_Weights.IMAGENET1K_V1
    inner = [(list(conv).index(net.get_submodule(n)), c) for n, c in AUXILIARY]
    return averaged(conv, net, published, weights, Preprocessing(input_px, mean, std), inner)


def averaged(
    conv: nn.Sequential,
    net: nn.Module,
    published: WeightsEnum | None,
    weights: str | None,
    inputs: Preprocessing,
    auxiliary: Sequence[tuple[int, int]] = (),
) -> Backbone:
    """A backbone of some of a network's layers, filled with weights."""
    channels: int = net.fc.in_features  # type: ignore[assignment,union-attr]
    backbone = Backbone(
        conv, None, 1, None, inputs, channels=channels, path=list(reach(conv)), auxiliary=auxiliary
    )
    if weights is not None:
        backbone.load(read(backbone, net, weights, published))
    return backbone


def read(
    backbone: Backbone, net: nn.Module, weights: str, imagenet: WeightsEnum | None
) -> LoadedWeights:
    """Weights in torchvision's names or ours.

    Args:
        backbone: that they are for.
        net: torchvision's network, whose layers the backbone has; it gives the names.
        weights: "imagenet" or a file.
        imagenet: torchvision's weights.

    Raises:
        UserError: they are of another network.
    """
    if weights == "imagenet":
        state = download(type(net).__name__, imagenet)
    else:
        state = read_state(Path(weights).expanduser())
    if any(key.startswith(BACKBONE_PREFIX) for key in state):
        return LoadedWeights(of_model(state), weights)
    if any(key.startswith("conv.") for key in state):
        return LoadedWeights({k: v for k, v in state.items() if k.startswith("conv.")}, weights)
    try:
        net.load_state_dict(without_aux(state))
    except RuntimeError as error:
        raise UserError(
            f"backbone.weights={weights} is of another network: "
            f"{str(error).splitlines()[1].strip()}"
        ) from None
    ours = {f"conv.{k}": v for k, v in backbone.conv.state_dict().items()}
    return LoadedWeights(ours, weights, {part: state[f"fc.{part}"] for part in ("weight", "bias")})


def without_aux(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of torchvision without the auxiliary classifiers."""
    return {k: v for k, v in state.items() if not k.startswith("aux")}


def reach(module: nn.Module) -> Iterator[nn.Module]:
    """The convolutions, poolings and paddings on the way that reaches farthest."""
    if isinstance(module, Bottleneck):
        yield from (module.conv1, module.conv2, module.conv3)
    elif isinstance(module, Inception):
        yield from reach(module.branch3)
    elif isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.ZeroPad2d):
        yield module
    else:
        for child in module.children():
            yield from reach(child)
