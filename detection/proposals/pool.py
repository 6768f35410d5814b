"""A pool of processes that looks for proposals, image by image, with a progress bar."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.disk.arrays import write_part
from detection.disk.images import read_image
from detection.errors import UserError
from detection.runtime.progress import progress

Part = tuple[Path, Sequence[Path]]
Search = Callable[[Any], NDArray[np.float32]]


def find_all(parts: Sequence[Part], search: Search, processes: int, title: str) -> None:
    """Write a file of proposals for each part, a list of images.

    Each file is written whole by the process that computed it, so that a stop at any moment
    loses the unfinished parts only.

    Raises:
        UserError: an image cannot be read, or a process died (out of memory).
    """
    if not parts:
        return
    workers = max(1, min(processes, len(parts)))
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads' locks
    with (
        progress(title, sum(len(images) for _, images in parts)) as advance,
        ProcessPoolExecutor(workers, mp_context=context, initializer=quiet) as pool,
    ):
        futures = {pool.submit(find_part, part, images, search): images for part, images in parts}
        try:
            for future in as_completed(futures):
                future.result()
                advance(len(futures[future]))
        except BrokenProcessPool:
            raise UserError(
                "a process that computed proposals was killed, most likely for want of memory: "
                "start again (finished parts are kept) with fewer, data.processes=1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def quiet() -> None:
    """Leave Ctrl-C to the parent, and keep OpenCV to one thread a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)


def find_part(part: Path, images: Sequence[Path], search: Search) -> None:
    """Proposals of some images → one file."""
    write_part(part, [search(read_image(path)) for path in images])
