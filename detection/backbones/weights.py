"""Weights of a backbone: downloaded, or from a file. Readers return them, and change nothing."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import WeightsEnum

from detection.backbones.backbone import Backbone, LoadedWeights
from detection.backbones.caffe_weights import CaffeNames, read_caffe
from detection.disk.torch_files import check_weights, load_plain
from detection.errors import UserError

log = logging.getLogger(__name__)

BACKBONE_PREFIX = "features.backbone."  # where a model of ours keeps its backbone
HEAD_PREFIXES = ("head.", "")  # and its fc6 and fc7; "" in checkpoints of older versions
WRAPPED = ("state_dict", "model", "model_state_dict", "weights")  # where programs keep the weights


@dataclass(frozen=True)
class Published:
    """Who publishes a network's weights, and what its layers are called there.

    Attributes:
        name: of the network, for messages.
        imagenet: torchvision's weights, or None.
        renaming: torchvision's prefixes of layers → ours.
        classifier: torchvision's prefix of the last layer.
        caffe: names in `.caffemodel` files; None where there are no such files.
    """

    name: str
    imagenet: WeightsEnum | None = None
    renaming: Mapping[str, str] = field(default_factory=dict)
    classifier: str = ""
    caffe: CaffeNames | None = None


def load_weights(backbone: Backbone, weights: str | None, published: Published) -> Backbone:
    """A backbone with the weights that a user names.

    Args:
        backbone: to be filled.
        weights: "imagenet", a path (a state dict in torchvision's names or ours, the checkpoint of
            a run, or a `.caffemodel`), or None to keep the random ones.
        published: of this network.

    Raises:
        UserError: a failed download, an unreadable file, or layers of other shapes.
    """
    if weights is None:
        return backbone
    if weights.endswith(".caffemodel"):
        if published.caffe is None:
            raise UserError(
                f"backbone.weights={weights}: backbone={published.name} is torchvision's, for "
                "which Caffe has no weights; choose caffenet, zf5 or vgg16"
            )
        loaded = read_caffe(Path(weights).expanduser(), backbone, published.caffe)
    else:
        loaded = read_weights(weights, published)
    backbone.load(loaded)
    return backbone


def read_weights(weights: str, published: Published) -> LoadedWeights:
    """Weights in torchvision's names or ours."""
    if weights == "imagenet":
        state, source = download(published.name, published.imagenet), str(published.imagenet)
    else:
        state, source = read_state(Path(weights).expanduser()), weights
    if any(key.startswith(BACKBONE_PREFIX) for key in state):
        return LoadedWeights(of_model(state), source)
    ours = {rename(key, published.renaming): value for key, value in state.items()}
    kept = {k: v for k, v in ours.items() if k.startswith(("conv.", "fc6.", "fc7."))}
    last = {k.removeprefix(published.classifier): v for k, v in state.items()
            if published.classifier and k.startswith(published.classifier)}  # fmt: skip
    return LoadedWeights(kept, source, last)


def of_model(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's convolutions, and fc6 and fc7, of a whole model of ours."""
    found = {}
    for key, value in state.items():
        bare = key.removeprefix(BACKBONE_PREFIX)
        if bare != key and bare.startswith("conv."):
            found[bare] = value
        for prefix in HEAD_PREFIXES:
            bare = key.removeprefix(prefix)
            if key.startswith(prefix) and bare.startswith(("fc6.", "fc7.")):
                found[bare] = value
    return found


def rename(key: str, names: Mapping[str, str]) -> str:
    """A layer's name among ours."""
    for theirs, ours in names.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def download(name: str, imagenet: WeightsEnum | None) -> dict[str, Tensor]:
    """ImageNet weights from torchvision, kept in torch's cache."""
    if imagenet is None:
        raise UserError(
            f"backbone.weights=imagenet: nobody publishes {name} for PyTorch; give a file with "
            "backbone.weights=PATH, or train from nothing with backbone.weights=null"
        )
    try:
        return dict(imagenet.get_state_dict(progress=True, check_hash=True))
    except (URLError, OSError, RuntimeError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / imagenet.url.rpartition("/")[2]
        raise UserError(
            f"the ImageNet weights of {name} could not be downloaded ({error}). Offline: fetch "
            f"{imagenet.url} elsewhere and put it at {target}, or give the file with "
            "backbone.weights=PATH, or train from nothing with backbone.weights=null "
            "(expect far less accuracy, and a pre-training stage first)"
        ) from None


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a file.

    Raises:
        UserError: the file is missing, or holds none.
    """
    if not path.is_file():
        raise UserError(f"backbone.weights={path}: there is no such file")
    what = f"backbone.weights={path} is not a file of weights"
    if path.suffix == ".safetensors":
        try:
            content: Any = load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{what}: {error}") from None
    else:
        content = load_plain(path, what)
    for key in WRAPPED:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    return {bare(name): value for name, value in check_weights(content, what).items()}


def bare(name: str) -> str:
    """A tensor's name without what a wrapper for several GPUs, or a compiled one, adds.

    >>> bare("module.conv1.weight"), bare("features.module.0.weight"), bare("_orig_mod.fc.bias")
    ('conv1.weight', 'features.0.weight', 'fc.bias')
    """
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))
