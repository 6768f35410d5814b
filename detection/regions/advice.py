"""What a person should know of her data before a region detector learns from it."""

import logging
from typing import Protocol

from torch import Tensor

from detection.data.box_summary import object_shares
from detection.data.module import DataModule
from detection.runtime.distributed import is_first_process

log = logging.getLogger(__name__)


class Advising(Protocol):
    """Features that suit objects of some sizes better than others."""

    def advice(self, shares: Tensor) -> str:
        """Settings that may suit objects of such sides (N,), in shares of images; or nothing."""
        ...


def tell_advice(features: Advising, data: DataModule) -> None:
    """Log the settings that may suit the training objects better, if there are such."""
    if "train" not in data.splits or not is_first_process():
        return
    if advice := features.advice(object_shares(data.splits["train"])):
        log.info("%s", advice)
