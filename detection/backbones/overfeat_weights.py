"""The reader of OverFeat's released weights: `net_weight_0` (fast), `net_weight_1` (accurate)."""

import logging
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn

from detection.backbones.backbone import Backbone
from detection.errors import UserError

log = logging.getLogger(__name__)

FILE_PREFIX = "net_weight"
RELEASED_CLASSES = 1000
WNID = re.compile(r"n\d{8}")


def fill_from_overfeat(backbone: Backbone, path: Path, class_order: Path | None) -> None:
    """Load a released file: float32 without header, weights (out, in, rows, columns), then bias.

    The layers follow each other from the first to the classifier.

    Args:
        backbone: OverFeat's fast or accurate network, at full width.
        path: of the file.
        class_order: text file with the wnid of each class in the released order, one somewhere
            in each line: the development kit's ILSVRC2012_ID, which begins with the kit fox. With
            it the classifier is read too, its classes in the alphabetical order of wnids.

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
    if class_order is None:
        log.warning(
            "%s: without the classifier, whose classes are in the development kit's order; "
            "backbone.class_order=FILE tells their wnids",
            path,
        )
        return
    order = torch.tensor(alphabetical(class_order))
    backbone.spare["classifier.weight"] = classifier.weight.detach()[order]
    backbone.spare["classifier.bias"] = classifier.bias.detach()[order]


def alphabetical(class_order: Path) -> list[int]:
    """Places of the classes in a file of wnids, in the alphabetical order of these."""
    if not class_order.is_file():
        raise UserError(f"backbone.class_order={class_order}: there is no such file")
    lines = class_order.read_text(encoding="utf-8").splitlines()
    wnids = [found[0] for line in lines if (found := WNID.search(line))]
    if len(set(wnids)) != RELEASED_CLASSES:
        raise UserError(
            f"backbone.class_order={class_order} names {len(set(wnids))} classes, one a line; "
            f"{RELEASED_CLASSES} are wanted"
        )
    return sorted(range(len(wnids)), key=wnids.__getitem__)
