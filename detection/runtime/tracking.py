"""Weights & Biases: online where a key is configured, else offline; never a prompt."""

import logging
import netrc
import os
from typing import Any
from urllib.parse import urlparse

import wandb
from pytorch_lightning.loggers import WandbLogger

log = logging.getLogger(__name__)


def wandb_logger(*, project: str, save_dir: str, **options: Any) -> WandbLogger:
    """A `WandbLogger` that works everywhere.

    Args:
        project: on W&B.
        save_dir: where its files go.
        options: of `WandbLogger`, such as `group`, `tags`, `name`.
    """
    os.environ.setdefault("WANDB_SILENT", "true")
    offline = not has_key() or os.environ.get("WANDB_MODE") == "offline"
    if offline:
        log.info(
            "W&B is offline; upload this run with: wandb sync %s/wandb/offline-run-*", save_dir
        )
    os.makedirs(save_dir, exist_ok=True)
    return WandbLogger(project=project, save_dir=save_dir, offline=offline, **options)


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
