"""Threads that look for proposals, image by image, with a progress bar."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.disk.arrays import write_part
from detection.disk.images import read_image
from detection.errors import UserError
from detection.runtime.progress import progress

Part = tuple[Path, Sequence[Path]]
Boxes = NDArray[np.float32]
Search = Callable[[Any], Boxes]
Job = tuple[int, int, Path]  # number of a part, and of an image in it
Found = tuple[int, int, Boxes]


def find_all(parts: Sequence[Part], search: Search, threads: int, title: str) -> None:
    """Write a file of proposals for each part, a list of images.

    Each file is written whole, so that a stop at any moment loses the unfinished parts only.

    Raises:
        UserError: an image cannot be read or written about, or there is no memory for it.
    """
    jobs = [(n, i, path) for n, (_, images) in enumerate(parts) for i, path in enumerate(images)]
    found: list[dict[int, Boxes]] = [{} for _ in parts]
    with progress(title, len(jobs)) as advance:
        for part, image, boxes in searched(jobs, search, threads):
            found[part][image] = boxes
            file, images = parts[part]
            if len(found[part]) == len(images):
                write_part(file, [found[part].pop(i) for i in range(len(images))])
            advance(1)


def searched(jobs: Sequence[Job], search: Search, threads: int) -> Iterator[Found]:
    """The proposals of some images, as threads find them; the search holds no lock of Python's.

    After an error or Ctrl-C every thread ends with the picture that it is at, and none keeps the
    process alive.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    results: SimpleQueue[Found | BaseException] = SimpleQueue()
    stop = threading.Event()
    for job in jobs:
        waiting.put(job)
    for _ in range(min(max(1, threads), len(jobs))):
        arguments = (waiting, results, stop, search)
        threading.Thread(target=work, args=arguments, name="proposals", daemon=True).start()
    try:
        for _ in jobs:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()


def work(
    waiting: "SimpleQueue[Job]",
    results: "SimpleQueue[Found | BaseException]",
    stop: threading.Event,
    search: Search,
) -> None:
    """What each thread does until no image waits."""
    while not stop.is_set():
        try:
            part, image, path = waiting.get_nowait()
            results.put((part, image, search_file(path, search)))
        except Empty:
            return
        except BaseException as error:  # raised where it is waited for
            results.put(error)
            return


def search_file(path: Path, search: Search) -> Boxes:
    """Proposals of an image file.

    Raises:
        UserError: it cannot be read, or there is no memory for it.
    """
    try:
        return search(read_image(path))
    except MemoryError:
        raise UserError(
            f"{path}: there is no memory to look for proposals: fewer at a time (data.threads=1), "
            "or a smaller picture (model.search.max_side_px)"
        ) from None
