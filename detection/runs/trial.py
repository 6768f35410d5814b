"""Jobs of a sweep that use several processes each. Imports nothing slow."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from detection.disk.files import read_figures
from detection.errors import TrainingError


def needs_own_process(cfg: DictConfig) -> bool:
    """Whether this is a job of a sweep on several devices.

    Lightning starts the other processes of a job with this process's command line, which holds the
    whole sweep: each would run all jobs, in folders of its own, with values of its own.
    """
    several = cfg.trainer.devices not in (1, "1") or cfg.trainer.get("num_nodes", 1) != 1
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN and several)


def run_trial(cfg: DictConfig) -> float:
    """Run one job of a sweep as a run of its own, in its folder; its optimised metric.

    Raises:
        TrainingError: it failed; its own message stands above.
    """
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    command = [sys.executable, sys.argv[0], *hydra_cfg.overrides.task, f"run_dir={folder}"]
    if cfg.logger.get("wandb"):  # the job's process does not know of the sweep
        from detection.runtime.tracking import job_of_hydra  # slow to import

        for key, value in zip(("name", "group"), job_of_hydra(), strict=True):
            if not cfg.logger.wandb[key]:
                quoted = str(value).replace("'", "")
                command.append(f"logger.wandb.{key}='{quoted}'")
    if subprocess.run(command, check=False).returncode != 0:
        raise TrainingError(f"the job in {folder} failed")
    from detection.runs.train import optimized  # slow to import

    content: Any = OmegaConf.to_container(cfg, resolve=True)
    return optimized(content, read_figures(folder / "metrics.json"))
