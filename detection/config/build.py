"""The one door through which a config becomes an object."""

from collections.abc import Sequence
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from detection.errors import TrainingError, UserError

ALLOWED = ("detection.", "pytorch_lightning.", "torch.optim.", "torchvision.", "albumentations.")


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
    """A model from a run's own config: the tree of `_target_`s that its checkpoint keeps.

    From a checkpoint it is built by `parts.build_part`, which knows the parts of models alone.
    """
    return build(tree, num_classes=num_classes)


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


def without(tree: Any, option: str) -> Any:
    """A model's config whose parts do not have an option: it is None wherever it stands.

    >>> without({"features": {"backbone": {"weights": "imagenet", "width": 1}}}, "weights")
    {'features': {'backbone': {'weights': None, 'width': 1}}}
    """
    if isinstance(tree, dict):
        return {k: None if k == option else without(v, option) for k, v in tree.items()}
    return [without(value, option) for value in tree] if isinstance(tree, list) else tree
