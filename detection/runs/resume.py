"""The config that a run directory keeps, and what may change when the run is started again."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig

from detection.config.plain import flat
from detection.disk.files import write_text
from detection.disk.older_checkpoints import completed
from detection.disk.text import read_text
from detection.errors import UserError

log = logging.getLogger(__name__)

# What decides the figures; everything else (loggers, workers) may change on resuming, and devices
# between two stages.
DECISIVE = ("seed", "num_models", "model", "backbone", "data", "trainer")
CHOICE = "callbacks.best."  # what else is in callbacks only looks on
CHOSEN = ("model", "data", "backbone", "schedule", "proposals", "combine", "scales", "views",
          "experiment", "debug")  # fmt: skip
FREE = ("data.threads", "data.num_workers", "data.cache", "data.layout.cache")
# Of the trainer, where and how often, but not how it computes.
FREE_OF_TRAINER = (
    "accelerator", "devices", "num_nodes", "strategy", "log_every_n_steps", "detect_anomaly",
    "enable_progress_bar", "max_time", "profiler",
)  # fmt: skip


def check_same_config(
    run_dir: Path, config: dict[str, Any], decisive: Sequence[str] = DECISIVE
) -> None:
    """Check that a run directory holds no run with another config.

    Args:
        run_dir: of the run.
        config: that it is started with now.
        decisive: groups that decide its figures.

    Raises:
        UserError: it holds a run with another one; names the options that differ.
    """
    path = run_dir / "config.yaml"
    if not path.is_file() or not any(run_dir.glob("**/stages/*")):
        return  # nothing was learnt: the run failed before its first stage
    before = flat(completed(kept_config(path)))
    now = flat(config)
    changed = [
        f"{key}: {before.get(key)!r} there, {now.get(key)!r} now"
        for key in sorted(before.keys() | now.keys())
        if (key.split(".")[0] in decisive or key.startswith(CHOICE))
        and key not in (*FREE, *(f"trainer.{name}" for name in FREE_OF_TRAINER))
        and before.get(key) != now.get(key)
        and not is_to_come(run_dir, key)
    ]
    if changed:
        raise UserError(
            f"run_dir={run_dir} holds a run with another config ({'; '.join(changed[:5])}): choose "
            "another run_dir, or give the same options"
        )


def is_to_come(run_dir: Path, key: str) -> bool:
    """Whether an option is of a stage that was not begun: it may still change."""
    words = key.split(".")
    if words[:2] != ["model", "stages"] or len(words) < 4:
        return False
    return not any(run_dir.glob(f"**/stages/*_{words[2]}"))


def kept_config(path: Path) -> dict[str, Any]:
    """The content of a run's `config.yaml`.

    Raises:
        UserError: it is damaged.
    """
    try:
        content = yaml.safe_load(read_text(path))
    except (yaml.YAMLError, UserError):
        content = None
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(
            f"{path} is damaged: delete it, and the run goes on with the options that it is given"
        )
    return content


def keep_config(run_dir: Path, config: dict[str, Any]) -> None:
    """Write `config.yaml`: resolved, plain values, and last the names of the chosen configs."""
    kept = {**config, "choices": choices()}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
    write_text(run_dir / "config.yaml", text)


def warn_without_weights(config: dict[str, Any]) -> None:
    """Say plainly what to expect of a network that starts from nothing."""
    if config["backbone"]["weights"] is not None or config["data"]["task"] != "detection":
        return  # a classifier is what weights come from
    if config.get("published"):
        log.warning(
            "backbone.weights=null: the published figures are of a network that was trained on "
            "ImageNet first, so this run is not the published one; give backbone.weights=FILE"
        )
    else:
        log.warning(
            "the backbone has no pre-trained weights: it learns from this data only. On a few "
            "hundred photographs expect a small part of the published "
            "accuracy; backbone=efficientnet_lite0 starts from ImageNet, offline"
        )


def choices() -> dict[str, str]:
    """What was chosen of each group that decides the figures, such as `model: sppnet`."""
    if not HydraConfig.initialized():
        return {}
    made = HydraConfig.get().runtime.choices
    return {group: str(made[group]) for group in CHOSEN if made.get(group) not in (None, "null")}
