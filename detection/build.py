"""The one door through which a config becomes an object."""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
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


def check_words(plain: Any, where: str = "") -> None:
    """Refuse a word that is none of those its target knows (a parameter that is a `Literal`).

    Args:
        plain: a config with `_target_` anywhere in it, as plain lists and dicts.
        where: dotted name of this part of it.

    Raises:
        UserError: names the option, its value and the words to choose from.
    """
    if isinstance(plain, list):
        for number, value in enumerate(plain):
            check_words(value, f"{where}.{number}")
    if not isinstance(plain, dict):
        return
    known = words_of(str(plain.get("_target_", "")))
    for key, value in plain.items():
        option = f"{where}.{key}".lstrip(".")
        if isinstance(value, str) and value not in known.get(key, [value]):
            raise UserError(f"{option}={value}: choose one of {', '.join(known[key])}")
        check_words(value, option)


def words_of(target: str) -> dict[str, list[str]]:
    """The words that each parameter of a class or function of ours takes, where it takes few.

    >>> words_of("detection.proposals.selective_search.SelectiveSearch")["mode"]
    ['fast', 'quality']
    """
    if not target.startswith("detection."):
        return {}
    try:
        made = get_object(target)
    except (ImportError, ValueError) as error:
        raise UserError(f"config: _target_={target}: {error}") from error
    hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    return {name: words for name, hint in hints.items() if (words := literals(hint))}


def literals(hint: Any) -> list[str]:
    """The words of a `Literal`, also where it may be None instead."""
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [word for part in get_args(hint) for word in literals(part)]


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
