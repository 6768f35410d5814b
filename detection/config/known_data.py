"""The data that a checkpoint names, made of our own configs: it is no program."""

from collections.abc import Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from detection.config.build import targets
from detection.config.check import fits
from detection.config.parts import PLAIN
from detection.config.plain import CONF
from detection.errors import UserError

FOLDERS = ("cache", "download_to")  # that we write in


def known_data(kept: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """What `data=` composes to for the data set that a checkpoint names, with its plain options.

    Args:
        kept: the config in the checkpoint.
        words: overrides of the command line that count here: `paths.*`.

    Raises:
        UserError: it names none of ours, or asks for other classes, functions or types of values.
    """
    name = kept.get("name")
    if not kept or not is_ours(name):
        raise UserError(
            f"data= must say what to test on: the checkpoint's data, {name!r}, is none of conf/data"
        )
    loader = GlobalHydra.instance().config_loader()
    cfg = loader.load_configuration("train", [f"data={name}", *words], run_mode=RunMode.RUN)
    ours: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return merged(ours, kept, "data")


def is_ours(name: object) -> bool:
    """Whether a name is that of a choice of `data=`."""
    return isinstance(name, str) and name in {p.stem for p in (CONF / "data").glob("[!_]*.yaml")}


def merged(ours: dict[str, Any], kept: dict[str, Any], where: str) -> dict[str, Any]:
    """Our config of a data set with the values of another's, where they are plain and fit.

    Options that ours has no longer are left out. Folders that are written in are ours.

    >>> merged({"_target_": "a.B", "limit": None}, {"_target_": "a.B", "limit": 5}, "data")
    {'_target_': 'a.B', 'limit': 5}

    Raises:
        UserError: another class or function, or a value of another type; names it.
    """
    result = {}
    for key, own in ours.items():
        name, value = f"{where}.{key}", kept.get(key, own)
        if isinstance(own, dict) and isinstance(value, dict) and own:
            result[key] = merged(own, value, name)
        elif key.startswith("_") and value != own:
            raise UserError(f"the checkpoint's {name} is {value}, where ours is {own}: refused")
        elif not is_plain(value) or not suits(value, own):
            raise UserError(f"the checkpoint's {name} is {value!r}, which is no value for it")
        elif key in FOLDERS:
            result[key] = own  # what is written goes where this user says
        else:
            result[key] = value
    return result


def suits(value: Any, own: Any) -> bool:
    """Whether a value may stand where ours stands, or be one of those that ours lists.

    >>> suits(3, [1, 2]), suits(3, "???"), suits("a", 1)
    (True, True, False)
    """
    if own == "???":
        return True
    return fits(value, own) or (isinstance(own, list) and len(own) > 0 and fits(value, own[0]))


def is_plain(value: Any) -> bool:
    """Whether a value is plain, or made of such, and nothing in it would be resolved or built.

    >>> is_plain([1, {"a": "b"}]), is_plain("${oc.env:SECRET}"), is_plain({"_target_": "os.system"})
    (True, False, False)
    """
    if isinstance(value, dict):
        return not targets(value) and all(is_plain(v) for v in (*value, *value.values()))
    if isinstance(value, list):
        return not targets(value) and all(map(is_plain, value))
    return isinstance(value, PLAIN) and "${" not in str(value)
