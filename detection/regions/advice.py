"""What a person should know of her data before a region detector learns from it."""

import logging
from typing import Protocol

from torch import Tensor

from detection.data.box_summary import object_shares
from detection.data.module import DataModule
from detection.proposals.recall import ProposalRecall, recall_report
from detection.runtime.distributed import is_first_process

log = logging.getLogger(__name__)

LITTLE_RECALL = 0.8  # at IoU 0.5


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


def tell_recall(name: str, recall: ProposalRecall, published: bool) -> None:
    """Log what the proposals cover; a warning where it is little, with what may help."""
    log.info("%s", recall_report(name, recall))
    if recall.at(0.5) < LITTLE_RECALL and not published:
        log.warning(
            "the proposals of %s cover %.0f %% of the objects only, and no detector finds the "
            "others: try a smaller model.search.min_side_px (small objects), a larger "
            "model.search.max_side_px (large pictures), or model.search.mode=quality",
            name, 100 * recall.at(0.5),
        )  # fmt: skip
