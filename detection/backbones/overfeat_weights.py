"""The reader of OverFeat's released weights: `net_weight_0` (fast), `net_weight_1` (accurate)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detection.backbones.backbone import Backbone, LoadedWeights
from detection.errors import UserError

FILE_PREFIX = "net_weight"
RELEASED_CLASSES = 1000


def read_overfeat(path: Path, backbone: Backbone) -> LoadedWeights:
    """A released file: float32 without header, weights (out, in, rows, columns), then bias.

    The layers follow each other from the first to the classifier, whose classes are turned from
    the released order to the alphabetical one of wnids. The original's ReLU lets through what
    exceeds 1e-6 (modules.hpp), ours what exceeds 0, as in the paper.

    Args:
        path: of the file.
        backbone: OverFeat's fast or accurate network, at full width; it is only looked at.

    Raises:
        UserError: the file is missing or of another size.
    """
    if not path.is_file():
        raise UserError(f"backbone.weights={path}: there is no such file")
    fc = backbone.grid_fc
    assert fc is not None
    shapes = {f"conv.{k}": v.shape for k, v in backbone.conv.named_parameters()}
    for name, layer in (("fc6", fc.fc6), ("fc7", fc.fc7)):
        shapes |= {f"{name}.{k}": v.shape for k, v in layer.named_parameters()}
    shapes["classifier.weight"] = torch.Size([RELEASED_CLASSES, fc.fc7.out_features])
    shapes["classifier.bias"] = torch.Size([RELEASED_CLASSES])
    wanted = 4 * sum(shape.numel() for shape in shapes.values())
    if path.stat().st_size != wanted:
        raise UserError(
            f"backbone.weights={path} has {path.stat().st_size} bytes, but this network's file has "
            f"{wanted}: net_weight_0 is of overfeat_fast, net_weight_1 of overfeat_accurate, both "
            "with backbone.width=1"
        )
    values = np.memmap(path, np.float32, mode="r")
    state: dict[str, Tensor] = {}
    place = 0
    for name, shape in shapes.items():
        block = np.array(values[place : place + shape.numel()])
        state[name] = torch.from_numpy(block).view(shape)
        place += shape.numel()
    wnids = released_wnids()
    alphabetical = torch.tensor(sorted(range(len(wnids)), key=wnids.__getitem__))
    last = {part: state.pop(f"classifier.{part}")[alphabetical] for part in ("weight", "bias")}
    return LoadedWeights(state, str(path), last)


def released_wnids() -> list[str]:
    """The classes in the released order: the development kit's ILSVRC2012_ID, kit fox first."""
    file = Path(__file__).parent / "overfeat_classes.txt"
    return file.read_text(encoding="utf-8").splitlines()
