"""The proposals of a data set's splits, and what a person should know of them."""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from detection.data.module import DataModule
from detection.proposals.published import PublishedBoxes
from detection.proposals.recall import ProposalRecall, recall_report
from detection.proposals.source import ProposalSource
from detection.proposals.store import open_store
from detection.runtime.distributed import is_first_process

log = logging.getLogger(__name__)

LITTLE_RECALL = 0.8  # at IoU 0.5


def find_proposals(
    data: DataModule, search: ProposalSource, published_boxes: Mapping[str, str | None]
) -> None:
    """Give every split its proposals, computed where they are not on disk, and tell their recall.

    Args:
        data: with ground truth.
        search: finds them.
        published_boxes: for each split a `.mat` file to take instead; None: search.

    Raises:
        UserError: an image cannot be read, the disk is full, or a `.mat` file lacks images.
    """
    if search.notice and is_first_process():
        log.info("%s", search.notice)
    for split, dataset in data.splits.items():
        # validation images may be held aside from train
        published = published_boxes.get("train" if split == "val" else split)
        published = published_boxes.get(split, published)
        if published:
            dataset.find_proposals(partial(PublishedBoxes.of, Path(published).expanduser()))
        else:
            name = f"{data.name}-{split}"
            dataset.find_proposals(
                partial(open_store, data.cache, name, search=search, threads=data.threads)
            )
        if is_first_process():
            hint = None if published else search.hint
            tell_recall(f"{data.name} {split}", ProposalRecall.of(dataset), hint)


def tell_recall(name: str, recall: ProposalRecall, hint: str | None) -> None:
    """Log what the proposals cover; a warning where it is little, with what may help."""
    log.info("%s", recall_report(name, recall))
    if recall.at(0.5) < LITTLE_RECALL and hint:
        log.warning(
            "the proposals of %s cover %.0f %% of the objects only, and no detector finds the "
            "others: try %s", name, 100 * recall.at(0.5), hint,
        )  # fmt: skip
