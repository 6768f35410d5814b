"""Progress of slow work: a bar on a terminal, a few lines in a log file."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 30.0


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A function to call with the number of items done since the last call.

    Args:
        title: of the work.
        total: number of items; None if nobody knows.
    """
    if not sys.stdout.isatty():
        yield log_lines(title, total)
        return
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    ]
    with Progress(*columns) as bar:
        task = bar.add_task(title, total=total)
        yield lambda done: bar.advance(task, done)


def log_lines(title: str, total: int | None) -> Callable[[int], None]:
    """The same for a log file: a line at the start, at the end, and now and then between."""
    started = last = time.monotonic()
    count = 0
    log.info("%s: 0/%s", title, "?" if total is None else total)

    def advance(done: int) -> None:
        nonlocal count, last
        count += done
        now = time.monotonic()
        if count == total or now - last >= SECONDS_BETWEEN_LINES:
            last = now
            if total is None:
                log.info("%s: %d, %.0f s", title, count, now - started)
                return
            left = (now - started) / count * (total - count)
            log.info("%s: %d/%d, %.0f s, %.0f s left", title, count, total, now - started, left)

    return advance
