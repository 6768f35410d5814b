"""Configs as plain values, and where the configs lie."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from detection.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1]
# beside the package in a checkout, inside it where it was installed from a wheel
CONF = PACKAGE.parent / "conf" if (PACKAGE.parent / "conf").is_dir() else PACKAGE / "conf"


def plain(cfg: DictConfig) -> dict[str, Any]:
    """A config as plain values, resolved.

    Raises:
        UserError: a value that must be given is missing.
    """
    missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{missing[0]} must be given: {missing[0]}=VALUE")
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    return dict(content)


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted names.

    >>> flat({"a": {"b": 1}, "c": [2]})
    {'a.b': 1, 'c': [2]}
    """
    result: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            result |= flat(value, f"{name}.")
        else:
            result[name] = value
    return result


def without_model(cfg: DictConfig) -> DictConfig:
    """A config without the model that some data choose: where there is a checkpoint, it counts."""
    return OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "model"])
