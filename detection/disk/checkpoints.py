"""A whole detector in one file: weights, class names, and how to build it."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from detection import __version__
from detection.config.build import build, targets
from detection.disk.files import replacing
from detection.errors import UserError

FORMAT = 1  # of the file; a reader refuses others


def make_detector(config: dict[str, Any], num_classes: int) -> nn.Module:
    """A detector from the plain configs of its backbone, features and itself."""
    backbone = build(config["backbone"])
    features = build(config["features"], backbone=backbone)
    detector: nn.Module = build(config["detector"], features=features, num_classes=num_classes)
    return detector


def save_detector(
    path: Path, detector: nn.Module, class_names: list[str], config: dict[str, Any]
) -> None:
    """Write `detector.ckpt`.

    Args:
        path: of the file.
        detector: made by `make_detector`.
        class_names: in the order of the labels.
        config: plain values: `backbone`, `features`, `detector`, and `data` to test it on.
    """
    content = {
        "format": FORMAT,
        "version": __version__,
        "class_names": list(class_names),
        "config": config,
        "state_dict": {k: v.detach().cpu() for k, v in detector.state_dict().items()},
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """The content of a `detector.ckpt`; nothing in it is run.

    Args:
        path: the file, or the folder of its run.

    Raises:
        UserError: it is missing, damaged, or no detector of ours.
    """
    path = Path(path).expanduser()
    file = path / "detector.ckpt" if path.is_dir() else path
    if not file.is_file():
        inside = sorted(str(found.parent) for found in path.glob("*_*/detector.ckpt"))
        hint = f": the run has {len(inside)}, such as {inside[0]}" if inside else (
            ": give a run's folder or its detector.ckpt")  # fmt: skip
        raise UserError(f"there is no detector at {file}{hint}")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{file} is damaged or not a detector.ckpt: {reason}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file} is not a detector.ckpt of this version (format {FORMAT})")
    return content


def restore_detector(content: dict[str, Any]) -> nn.Module:
    """The detector of a checkpoint, built by our own classes only."""
    config = dict(content["config"])
    config["backbone"] = {**config["backbone"], "weights": None}  # they are in the state dict
    for part in ("backbone", "features", "detector", "data", "views"):
        build_only_ours(config.get(part))
    detector = make_detector(config, len(content["class_names"]))
    fill_detector(detector, content)
    return detector


def build_only_ours(config: Any) -> None:
    """Refuse a checkpoint that names foreign code."""
    foreign = [t for t in targets(config) if not t.startswith("detection.")]
    if foreign:
        raise UserError(f"the checkpoint asks to run {foreign[0]}, which is refused")


def fill_detector(detector: nn.Module, content: dict[str, Any]) -> None:
    """Load a checkpoint's weights into a detector.

    Raises:
        UserError: they are of another network or of other classes.
    """
    try:
        detector.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        names = ", ".join(content["class_names"][:8])
        raise UserError(
            f"the checkpoint's weights do not fit this detector (it was trained on "
            f"{len(content['class_names'])} classes: {names}): {str(error).splitlines()[1].strip()}"
        ) from None
