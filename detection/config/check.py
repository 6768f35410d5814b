"""Checks a composed config against its own defaults: an option has the type of its default."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from detection.config.choices import check_words
from detection.config.names import did_you_mean
from detection.config.plain import CONF, without_model
from detection.config.ranges import check_ranges
from detection.errors import UserError

# Keyword arguments of Lightning's classes go here freely; Lightning checks their names.
OWN_FOLDER = "detection.data.sources.existing_folder"
ONE_A_MODEL = ("backbone.weights",)  # or a list, of num_models=
OPEN_ENDED = ("callbacks", "logger", "trainer", "hydra", "published", "reference")


def check_config(cfg: DictConfig) -> None:
    """Refuse unknown keys and wrong types in what the user set on the command line.

    Raises:
        UserError: names the option, its value, the type wanted, and the nearest right name.
    """
    hydra_cfg = HydraConfig.get()
    loader = GlobalHydra.instance().config_loader()
    groups = loader.list_groups("")
    # not what `debug=` sets: an option has the type that it has without
    groups = [group for group in groups if group != "debug"]
    given = list(hydra_cfg.overrides.task)
    if "ckpt" in cfg:
        if chosen_model := [word for word in given if word.startswith(("model=", "model."))]:
            raise UserError(f"{chosen_model[0]} means nothing here: ckpt= brings the model")
        cfg = without_model(cfg)
    chosen = [o for o in given if is_choice(o, groups)]
    defaults = cfg
    if chosen != given:  # to compose once more takes a tenth of a second
        name = str(hydra_cfg.job.config_name)
        defaults = loader.load_configuration(name, overrides=chosen, run_mode=RunMode.RUN)
    check_task(cfg)
    check_schedule(cfg)
    compare(cfg, defaults, "")
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    check_words(
        {"_target_": "detection.runs.evaluate.restore_all", **content} if "ckpt" in cfg else content
    )
    check_ranges(content)
    check_scoring(content.get("model") or {})
    root = OmegaConf.select(cfg, "data.root")
    if root is not None and not Path(root).expanduser().is_dir():
        raise UserError(f"data.root={root}: there is no such folder")
    if "data" in cfg and root is None and cfg.data is not None:
        check_root(cfg, str(hydra_cfg.runtime.choices["data"]))


def check_root(cfg: DictConfig, choice: str) -> None:
    """Check that a data set of the user's own has its folder.

    Raises:
        UserError: it has none; says what a folder must hold.
    """
    if OmegaConf.select(cfg, "data.source._target_") != OWN_FOLDER:
        return
    layout = (CONF / "data" / f"{choice}.yaml").read_text(encoding="utf-8").splitlines()[0]
    raise UserError(f"data={choice} needs data.root=FOLDER. {layout.lstrip('# ')}")


def check_task(cfg: DictConfig) -> None:
    """Check that the model learns the task that the data is of."""
    if "model" not in cfg or cfg.data.task in cfg.model.tasks:
        return
    choices = HydraConfig.get().runtime.choices
    data = [name for name, task in tasks_of_data().items() if task in cfg.model.tasks]
    raise UserError(
        f"model={choices['model']} does not learn from data={choices['data']}, which is for "
        f"{cfg.data.task}: choose one of data={', '.join(data)}"
    )


def check_scoring(model: dict[str, Any]) -> None:
    """Check that a stage learns what scores the regions.

    >>> check_scoring({"scoring": "svm", "stages": {"svm": {"images_per_round": 4}}})

    Raises:
        UserError: it is switched off.
    """
    learnt_by = {"svm": "svm", "softmax": "finetune"}
    scoring, stages = model.get("scoring"), model.get("stages", {})
    if scoring in learnt_by and not stages.get(learnt_by[scoring]):
        other = next(way for way in learnt_by if way != scoring)
        raise UserError(
            f"model.scoring={scoring} needs model.stages.{learnt_by[scoring]}, which is off: leave "
            f"it on, or choose model.scoring={other}"
        )


def check_schedule(cfg: DictConfig) -> None:
    """Check that the model knows the schedule that the user asks for."""
    words = HydraConfig.get().overrides.task
    if "model" not in cfg or not any(word.startswith("schedule=") for word in words):
        return
    choices = HydraConfig.get().runtime.choices
    model, chosen = choices["model"], choices["schedule"]
    known = ["paper", *(path.stem.removeprefix(f"{model}_") for path in
                        sorted((CONF / "fit" / "schedule").glob("*.yaml"))
                        if path.stem.rpartition("_")[0] == model)]  # fmt: skip
    if chosen not in known:
        raise UserError(
            f"model={model} has no schedule={chosen}: choose one of schedule={', '.join(known)}, "
            f"or say what it changes in conf/fit/schedule/{model}_{chosen}.yaml"
        )


def tasks_of_data() -> dict[str, str]:
    """Every choice of `data=` and its task; what several share stands in files named _...."""
    configs: dict[str, Any] = {
        path.stem: OmegaConf.load(path) for path in sorted((CONF / "data").glob("*.yaml"))
    }

    def task(name: str) -> str:
        config = configs[name]
        own = config.get("task")
        if own and own != "???":
            return str(own)
        bases = [b for b in config.get("defaults", []) if b in configs]
        return task(bases[0]) if bases else ""

    return {name: task(name) for name in configs if not name.startswith("_")}


def is_choice(override: str, groups: list[str]) -> bool:
    """Whether an override picks a group's config (`model=rcnn`) and does not set a value.

    >>> is_choice("data=voc", ["data"]), is_choice("data.root=x", ["data"])
    (True, False)
    """
    return override.lstrip("+~").partition("=")[0].split("@")[0].split("/")[0] in groups


def compare(given: DictConfig, default: DictConfig, where: str) -> None:
    """Walk two configs side by side; see `check_config`."""
    for raw_key in map(str, given):
        key = f"{where}{raw_key}"
        if key in OPEN_ENDED:
            continue
        if raw_key not in default.keys():  # noqa: SIM118  (`in` is false for what must be given)
            hint = did_you_mean(key, leaf_names(default, where))
            raise UserError(f"there is no option '{key}'{hint}")
        if OmegaConf.is_missing(given, raw_key):
            raise UserError(f"{key} must be given: {key}=VALUE")
        if OmegaConf.is_interpolation(given, raw_key):
            continue
        ours, theirs = given[raw_key], default_value(default, raw_key)
        if isinstance(ours, DictConfig) and isinstance(theirs, DictConfig):
            compare(ours, theirs, f"{key}.")
        elif plain(ours) != plain(theirs) and not fits(one_of(ours, key), plain(theirs)):
            raise UserError(
                f"{key}={plain(ours)!r} is {kind(plain(ours))}, but {kind(plain(theirs))} "
                f"is expected, such as {key}={plain(theirs)}"
            )


def default_value(default: DictConfig, key: str) -> Any:
    """The default, or None where it must be given by the user."""
    return None if OmegaConf.is_missing(default, key) else default[key]


def one_of(value: Any, key: str) -> Any:
    """A plain value; where a list may stand for several models', the first."""
    values = plain(value)
    is_list = key in ONE_A_MODEL and isinstance(values, list) and values
    return values[0] if is_list else values


def plain(value: Any) -> Any:
    """A config value as a plain one."""
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def fits(value: Any, default: Any) -> bool:
    """Whether a value may stand where `default` stands.

    >>> fits(1, 0.5), fits("a", 0.5), fits(None, 0.5), fits(None, {"x": 1}), fits([1], [0.5])
    (True, False, False, True, True)

    What a list of lists may hold instead is checked by its reader (`DenseViews`: sizes).

    >>> fits([245], [[245, 245]])
    True
    """
    if default is None or (value is None and isinstance(default, str | dict | list)):
        return True
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list):
        return isinstance(value, list) and (
            not default
            or isinstance(default[0], list)
            or all(fits(item, default[0]) for item in value)
        )
    if isinstance(default, str):
        return isinstance(value, str | int | float)  # an image id or a path may look like a number
    return isinstance(value, type(default))


def kind(value: Any) -> str:
    """A type in a user's words."""
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}
    names |= {list: "a list", dict: "a group of options", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def leaf_names(cfg: DictConfig, where: str = "") -> list[str]:
    """Dotted names of all options of a config, groups included."""
    names: list[str] = []
    for key in map(str, cfg):
        names.append(f"{where}{key}")
        plain_leaf = OmegaConf.is_missing(cfg, key) or OmegaConf.is_interpolation(cfg, key)
        if not plain_leaf and isinstance(cfg[key], DictConfig):
            names += leaf_names(cfg[key], f"{where}{key}.")
    return names


def known_names(words: Sequence[str] = ()) -> list[str]:
    """Every option and every group, for hints.

    Args:
        words: of the command line, whose choices of model and data have options of their own.
    """
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    chosen = [word for word in words if word.partition("=")[0] in ("model", "data", "schedule")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            return [*groups, *leaf_names(compose("train", chosen))]
        except HydraException:  # one of them is none
            return [*groups, *leaf_names(compose("train"))]
