"""Weights of a backbone: downloaded, or from a file."""

import logging
import pickle
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import WeightsEnum

from detection.backbones.backbone import Backbone
from detection.backbones.caffe_weights import fill_from_caffe
from detection.errors import UserError

log = logging.getLogger(__name__)

# torchvision's names of AlexNet's and VGG-16's layers → ours
TORCHVISION_NAMES = {
    "alexnet": {"features.": "conv.", "classifier.1.": "fc6.", "classifier.4.": "fc7."},
    "vgg16": {"features.": "conv.", "classifier.0.": "fc6.", "classifier.3.": "fc7."},
    "zf5": {},
    "caffenet": {},
    "overfeat": {},
}
DETECTOR_PREFIX = "features.backbone."  # where a detector of ours keeps its backbone


def load_weights(
    backbone: Backbone, name: str, weights: str | None, imagenet: WeightsEnum | None
) -> None:
    """Fill a backbone with weights.

    Args:
        backbone: to be filled; its fc6 and fc7 are too where the file has them.
        name: "alexnet", "caffenet", "overfeat", "vgg16" or "zf5".
        weights: "imagenet", a path (a state dict in torchvision's names or ours, the
            `detector.ckpt` of a run, or a `.caffemodel`), or None to keep the random ones.
        imagenet: what "imagenet" stands for.

    Raises:
        UserError: a failed download, an unreadable file, or layers of other shapes.
    """
    if weights is None:
        return
    if weights.endswith(".caffemodel"):
        fill_from_caffe(backbone, name, Path(weights).expanduser())
        return
    if weights == "imagenet":
        state = download(name, imagenet)
        source = str(imagenet)
    else:
        state, source = read_state(Path(weights).expanduser()), weights
    of_detector = any(key.startswith(DETECTOR_PREFIX) for key in state)
    keep_classifier(backbone, state, of_detector)
    state = renamed(state, TORCHVISION_NAMES[name])
    if of_detector:
        state = without_other_fc(backbone, state, source)
    fill(backbone, state, source)
    backbone.pretrained = True
    backbone.fc_pretrained = "fc6.weight" in state


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
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"backbone.weights={path} is not a file of weights: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise UserError(f"backbone.weights={path} holds no state dict")
    return content


def renamed(state: dict[str, Tensor], names: dict[str, str]) -> dict[str, Tensor]:
    """A state dict under our names; what a backbone does not have is left out."""
    ours = {}
    for key, value in state.items():
        if key.startswith(DETECTOR_PREFIX):
            key = key.removeprefix(DETECTOR_PREFIX)
        for theirs, prefix in names.items():
            if key.startswith(theirs):
                key = prefix + key.removeprefix(theirs)
        if key.startswith(("conv.", "fc6.", "fc7.")):
            ours[key] = value
    return ours


def keep_classifier(backbone: Backbone, state: dict[str, Tensor], of_detector: bool) -> None:
    """Keep a published network's last layer, for a classifier of the same classes."""
    for part in ("weight", "bias"):
        layer = state.get(f"classifier.6.{part}")  # torchvision's AlexNet and VGG-16
        if layer is not None and not of_detector:
            backbone.spare[f"classifier.{part}"] = layer


def without_other_fc(
    backbone: Backbone, state: dict[str, Tensor], source: str
) -> dict[str, Tensor]:
    """A detector's layers without its fc6 and fc7, if that fc6 reads other features than ours."""
    fc6 = state.get("fc6.weight")
    if fc6 is None or fc6.shape == backbone.fc6.weight.shape:
        return state
    backbone.spare |= {key: value for key, value in state.items() if key.startswith("fc")}
    return {key: value for key, value in state.items() if key.startswith("conv.")}


def fill(backbone: Backbone, state: dict[str, Tensor], source: str) -> None:
    """Load weights; all convolutions must be there and fit, fc6 and fc7 may be missing."""
    own = backbone.state_dict()
    missing = [key for key in own if key.startswith("conv.") and key not in state]
    if missing:
        raise UserError(
            f"weights of {source} lack {', '.join(missing[:4])}: they are of another network"
        )
    for key, value in state.items():
        if key not in own or own[key].shape != value.shape:
            wanted = tuple(own[key].shape) if key in own else "no such layer"
            raise UserError(
                f"weights of {source}: {key} is {tuple(value.shape)}, but this network has "
                f"{wanted}; choose the backbone (and backbone.width) they were trained with"
            )
    backbone.load_state_dict(state, strict=False)
