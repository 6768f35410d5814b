"""Weights & Biases: online where a key is configured, else offline; never a prompt."""

import logging
import netrc
import os
import ssl
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlparse
from urllib.request import urlopen

import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import WandbLogger

log = logging.getLogger(__name__)

ANSWER_S = 10  # seconds that a server has to answer


def wandb_logger(
    *,
    project: str,
    save_dir: str,
    name: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
) -> WandbLogger:
    """A `WandbLogger` that works everywhere.

    Args:
        project: on W&B.
        save_dir: where its files go.
        name: of the run; None: the model, the data and, in a sweep, what the job changes.
        group: None: of a sweep, its folder's name.
        job_type: None: "eval" of evaluate.py, else "train".
        tags: of the run.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    offline = not has_key() or os.environ.get("WANDB_MODE") in ("offline", "disabled")
    address = os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url
    if not offline and not answers(address):
        log.warning("W&B at %s does not answer within %d s: this run goes on offline",
                    address, ANSWER_S)  # fmt: skip
        offline = True
    if offline:
        log.info(
            "W&B is offline; upload this run with: wandb sync %s/wandb/offline-run-*", save_dir
        )
    os.makedirs(save_dir, exist_ok=True)
    job_name, sweep = job_of_hydra()
    tests = HydraConfig.initialized() and HydraConfig.get().job.config_name == "evaluate"
    logger = WandbLogger(
        project=project, save_dir=save_dir, offline=offline, name=name or job_name,
        group=group or sweep, job_type=job_type or ("eval" if tests else "train"), tags=list(tags),
    )  # fmt: skip
    logger._wandb_init.pop("anonymous", None)  # Lightning passes what W&B warns of
    return logger


def answers(address: str) -> bool:
    """Whether a server answers anything; W&B itself would wait for it for two minutes."""
    try:
        urlopen(address, timeout=ANSWER_S).close()
    except HTTPError:
        return True
    except URLError as error:  # W&B trusts certificates of its own, perhaps more than Python does
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, HTTPException, ValueError):
        return False
    return True


def job_of_hydra() -> tuple[str | None, str | None]:
    """A name for this job, and the name of the sweep that it is of; None where Hydra does not run.

    A job of a sweep is named by what it changes: "rcnn-shapes-seed=2".
    """
    if not HydraConfig.initialized():
        return None, None
    cfg = HydraConfig.get()
    choices = cfg.runtime.choices
    parts = [str(choices[group]) for group in ("model", "data") if choices.get(group)]
    if cfg.mode != RunMode.MULTIRUN:
        return "-".join(parts) or None, None
    values = [o for o in cfg.overrides.task if o.split("=")[0] not in ("model", "data")]
    return "-".join([*parts, *values])[:120], Path(cfg.sweep.dir).name


def finish_wandb(exit_code: int) -> None:
    """End this process's W&B run, if there is one, so that the next one is a run of its own."""
    if wandb.run is not None:
        wandb.finish(exit_code=exit_code)


def has_key() -> bool:
    """Whether a W&B key is configured, in the environment or by `wandb login`."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    # not `wandb.setup().settings`: what it reads then holds for the process, online or not
    host = urlparse(os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
