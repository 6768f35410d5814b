"""The reader of OverFeat's released weights: `net_weight_0` (fast), `net_weight_1` (accurate)."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from detection.backbones.backbone import Backbone
from detection.errors import UserError

FILE_PREFIX = "net_weight"
RELEASED_CLASSES = 1000


def fill_from_overfeat(backbone: Backbone, path: Path) -> None:
    """Load a released file: float32 without header, weights (out, in, rows, columns), then bias.

    The layers follow each other from the first to the classifier, whose classes are turned from
    the released order to the alphabetical one of wnids. The original's ReLU lets through what
    exceeds 1e-6 (modules.hpp), ours what exceeds 0, as in the paper.

    Args:
        backbone: OverFeat's fast or accurate network, at full width.
        path: of the file.

    Raises:
        UserError: the file is missing or of another size.
    """
    if not path.is_file():
        raise UserError(f"backbone.weights={path}: there is no such file")
    layers: list[nn.Conv2d | nn.Linear] = [m for m in backbone.conv if isinstance(m, nn.Conv2d)]
    layers += [backbone.fc6, backbone.fc7]
    classifier = nn.Linear(backbone.fc7.out_features, RELEASED_CLASSES)
    parameters = [p for layer in (*layers, classifier) for p in (layer.weight, layer.bias)]
    wanted = 4 * sum(p.numel() for p in parameters if p is not None)
    if path.stat().st_size != wanted:
        raise UserError(
            f"backbone.weights={path} has {path.stat().st_size} bytes, but this network's file has "
            f"{wanted}: net_weight_0 is of overfeat_fast, net_weight_1 of overfeat_accurate, both "
            "with backbone.width=1"
        )
    values = np.memmap(path, np.float32, mode="r")
    place = 0
    with torch.no_grad():
        for parameter in parameters:
            assert parameter is not None
            block = np.array(values[place : place + parameter.numel()])
            parameter.copy_(torch.from_numpy(block).view_as(parameter))
            place += parameter.numel()
    backbone.pretrained = backbone.fc_pretrained = True
    wnids = released_wnids()
    alphabetical = torch.tensor(sorted(range(len(wnids)), key=wnids.__getitem__))
    backbone.spare["classifier.weight"] = classifier.weight.detach()[alphabetical]
    backbone.spare["classifier.bias"] = classifier.bias.detach()[alphabetical]


def released_wnids() -> list[str]:
    """The classes in the released order: the development kit's ILSVRC2012_ID, kit fox first."""
    file = Path(__file__).parent / "overfeat_classes.txt"
    return file.read_text(encoding="utf-8").splitlines()
