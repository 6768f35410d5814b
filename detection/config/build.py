"""The one door through which a config becomes an object."""

import importlib
import inspect
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from detection.errors import TrainingError, UserError

ALLOWED = ("detection.", "pytorch_lightning.", "torch.optim.", "torchvision.", "albumentations.")
# Rooms whose classes a checkpoint may name: what models are made of. Some are to come.
MODEL_ROOMS = tuple(
    f"detection.{room}."
    for room in (
        "backbones",
        "classification",
        "combine",
        "localization",
        "object_scoring",
        "overfeat",
        "proposals",
        "regions",
        "rpn",
        "sppnet",
        "training",
    )
)


def build(node: Any, allowed: Sequence[str] = ALLOWED, **arguments: Any) -> Any:
    """The object that a config describes by `_target_`; lists and dicts inside it are plain.

    A `_target_` is code that a config runs, so only modules under `allowed` may be named.

    Args:
        node: a config with `_target_` at its root (and anywhere below).
        allowed: prefixes of the dotted names that `_target_` may start with.
        arguments: objects to hand to the constructor beside the config's own values.

    Raises:
        UserError: a target outside `allowed`, or arguments that the target refuses.
    """
    plain: Any = (
        OmegaConf.to_container(node, resolve=True)
        if isinstance(node, DictConfig | ListConfig)
        else node
    )
    for target in targets(plain):
        if not target.startswith(tuple(allowed)):
            raise UserError(f"config: _target_={target} is not allowed; use one of {list(allowed)}")
    try:
        return instantiate(plain, _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError | TrainingError):
            raise cause from None
        if isinstance(cause, TypeError):
            raise UserError(f"config of {plain['_target_']}: {cause}") from error
        raise


def build_model(tree: dict[str, Any], num_classes: int) -> Any:
    """A model from its config: the tree of `_target_`s that a checkpoint keeps."""
    return build(tree, num_classes=num_classes)


def build_foreign_model(tree: dict[str, Any], num_classes: int) -> Any:
    """A model from the config in somebody's checkpoint, which is data and no program.

    Each name must be where a class of our model rooms is defined, or a function that makes a
    module. A prefix only proves nothing, for Hydra walks attributes (`detection.<module>.<what it
    imports>`), and other functions of these rooms read files.

    Raises:
        UserError: it names anything else, or does not fit what it names.
    """
    for target in targets(tree):
        if not target.startswith(MODEL_ROOMS) or not makes_parts(target):
            raise UserError(f"the checkpoint asks to run {target}, which is refused")
    try:
        return build(tree, MODEL_ROOMS, num_classes=num_classes)
    except InstantiationException as error:
        raise UserError(f"the checkpoint's model cannot be built: {error.__cause__}") from error


def makes_parts(target: str) -> bool:
    """Whether a dotted name is where a class is defined, or a function that makes a module.

    >>> makes_parts("detection.combine.nms.NMS"), makes_parts("detection.backbones.zf5.zf5")
    (True, True)
    >>> makes_parts("detection.combine.nms.torch.load")
    False
    >>> makes_parts("detection.proposals.published.read_mat_boxes")
    False
    """
    module_name, _, name = target.rpartition(".")
    try:
        found = vars(importlib.import_module(module_name)).get(name)
    except ImportError:
        return False
    defined = (getattr(found, "__module__", None), getattr(found, "__qualname__", None))
    if defined != (module_name, name):
        return False
    if inspect.isclass(found):
        return True
    made = get_type_hints(found).get("return")
    parts = get_args(made) or (made,)  # of a union
    return all(inspect.isclass(part) and issubclass(part, nn.Module) for part in parts)


def targets(plain: Any) -> list[str]:
    """Every `_target_` in a plain config, outermost first.

    >>> targets({"_target_": "a.B", "x": [{"_target_": "c.D"}]})
    ['a.B', 'c.D']
    """
    if isinstance(plain, dict):
        own = [str(plain["_target_"])] if "_target_" in plain else []
        return own + [name for value in plain.values() for name in targets(value)]
    if isinstance(plain, list):
        return [name for value in plain for name in targets(value)]
    return []


def without_weights(tree: Any) -> Any:
    """A model's config whose backbones start from nothing: their weights come from elsewhere.

    >>> without_weights({"features": {"backbone": {"weights": "imagenet", "width": 1}}})
    {'features': {'backbone': {'weights': None, 'width': 1}}}
    """
    if isinstance(tree, dict):
        return {k: None if k == "weights" else without_weights(v) for k, v in tree.items()}
    return [without_weights(value) for value in tree] if isinstance(tree, list) else tree
