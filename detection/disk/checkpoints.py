"""A whole model in one file: weights, class names, and how to build it; plain values only."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor, nn

from detection import __version__
from detection.config.build import without
from detection.config.parts import build_part
from detection.disk.files import replacing
from detection.disk.older_checkpoints import OLDER_FORMAT, completed, upgraded
from detection.disk.run_files import NAME, find_checkpoint
from detection.disk.torch_files import check_weights, load_plain
from detection.errors import UserError

FORMAT = 2  # of the file; a reader refuses others
ALMOST_FULL = 2**24  # bytes free on a disk on which nothing more can be written


class Checkpoint(TypedDict):
    """The content of a `model.ckpt`.

    Attributes:
        format: of the file.
        version: of this package, that wrote it.
        model: its config, one tree of `_target_`s.
        data: the config of the data that it was trained for.
        class_names: in the order of the labels.
        state_dict: its weights.
        thresholds: by class, the score from which on F1 was best on validation images; of a
            detector that was validated.
    """

    format: int
    version: str
    model: dict[str, Any]
    data: dict[str, Any]
    class_names: list[str]
    state_dict: dict[str, Tensor]
    thresholds: dict[str, float]


def save_model(
    path: Path,
    model: nn.Module,
    tree: dict[str, Any],
    data: dict[str, Any],
    class_names: list[str],
    thresholds: dict[str, float] | None = None,
) -> None:
    """Write a checkpoint whole; see `Checkpoint`."""
    content: Checkpoint = {
        "format": FORMAT,
        "version": __version__,
        "model": tree,
        "data": data,
        "class_names": list(class_names),
        "state_dict": {k: v.detach().cpu() for k, v in model.state_dict().items()},
        "thresholds": thresholds or {},
    }
    write_whole(path, content)


def write_whole(path: Path, content: Any) -> None:
    """Write what `torch.load` reads, beside a file of before and then in its place.

    Raises:
        UserError: the disk is full; the file of before is kept.
    """
    with replacing(path) as temporary:
        try:
            torch.save(content, temporary)
        except RuntimeError as error:  # so torch says that its bytes found no room
            if shutil.disk_usage(path.parent).free > ALMOST_FULL:
                raise
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error


def read_checkpoint(path: Path | str) -> Checkpoint:
    """The content of a checkpoint; nothing in it is run.

    Args:
        path: see `find_checkpoint`; a `detector.ckpt` of an older version is read too.

    Raises:
        UserError: it is missing, damaged, or none of ours.
    """
    file = find_checkpoint(path)
    what = f"{file} is damaged or not a {NAME}"
    content = load_plain(file, what)
    if isinstance(content, dict) and content.get("format") == OLDER_FORMAT:
        content = upgraded(content) | {"format": FORMAT}
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{file} is not a {NAME} of this version (format {FORMAT})")
    check_content(content, what)
    return completed(content)  # type: ignore[return-value]


def check_content(content: dict[str, Any], what: str) -> None:
    """Check that everything is there, and of its type.

    Raises:
        UserError: something is not; names it.
    """
    kinds = {"model": dict, "data": dict, "class_names": list, "state_dict": dict}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            found = "missing" if key not in content else f"a {type(content[key]).__name__}"
            raise UserError(f"{what}: {key} is {found}")
    names, thresholds = content["class_names"], content.get("thresholds", {})
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{what}: class_names must be names")
    if not isinstance(thresholds, dict) or not all(
        isinstance(k, str) and isinstance(v, float) for k, v in thresholds.items()
    ):
        raise UserError(f"{what}: thresholds must be numbers by class")
    if "_target_" not in content["model"]:
        raise UserError(f"{what}: model says nothing to build")
    check_weights(content["state_dict"], what)


def restore_model(content: Checkpoint) -> Any:
    """The model of a checkpoint, built of the listed parts of models only, in eval mode.

    Raises:
        UserError: its config asks for more, or its weights are of another network.
    """
    tree = without(content["model"], "weights")  # they are in the state dict
    classes = len(content["class_names"])
    with torch.device("meta"):  # sizes first: a config of a few bytes can ask for all memory
        alone = without(tree, "classes")  # of a localiser: other runs, which it would read
        check_fits(build_part(alone, num_classes=classes), content)
    model = build_part(tree, num_classes=classes)
    load_weights(model, content)
    return model.eval()


def load_weights(model: nn.Module, content: Checkpoint) -> None:
    """Load a checkpoint's weights into a model.

    Raises:
        UserError: they are of another network or of other classes.
    """
    try:
        model.load_state_dict(content["state_dict"])
    except RuntimeError as error:
        raise UserError(misfit(content, str(error).splitlines()[1].strip())) from None


def check_fits(model: nn.Module, content: Checkpoint) -> None:
    """Check the sizes of a checkpoint's weights against a model's, which needs none of its own.

    Raises:
        UserError: one is missing, or of another size.
    """
    state = content["state_dict"]
    for name, value in model.state_dict().items():
        if name not in state:
            raise UserError(misfit(content, f"there is no {name}"))
        if state[name].shape != value.shape:
            there, here = list(state[name].shape), list(value.shape)
            raise UserError(misfit(content, f"{name} is {there} there and {here} here"))


def misfit(content: Checkpoint, reason: str) -> str:
    """A message about weights of another network or of other classes."""
    names = ", ".join(content["class_names"][:8])
    return (
        f"the checkpoint's weights do not fit this model (it was trained on "
        f"{len(content['class_names'])} classes: {names}): {reason}"
    )


def weights_digest(network: nn.Module) -> str:
    """A name for what a network has learnt, of its weights' bytes.

    (A sum would depend on how many threads add.)
    """
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()
