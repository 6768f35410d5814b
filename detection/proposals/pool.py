"""Threads that look for proposals, image by image, with a progress bar."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.disk.arrays import write_part
from detection.disk.images import read_image
from detection.errors import UserError
from detection.runtime.progress import progress

NAME = "proposals"  # of the threads
PATIENCE_S = 0.5  # with threads that are to end

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

    The first is found in the caller's thread: what a search loads or compiles once is there before
    any thread starts. After an error or Ctrl-C every thread ends with the picture that it is at;
    it is waited for half a second, and then no longer (see `config.command.leave`).
    """
    if not jobs:
        return
    (part, image, path), *others = jobs
    first = part, image, search_file(path, search)
    waiting: SimpleQueue[Job] = SimpleQueue()
    results: SimpleQueue[Found | BaseException] = SimpleQueue()
    stop = threading.Event()
    for job in others:
        waiting.put(job)
    started: list[threading.Thread] = []
    try:
        for _ in range(min(max(1, threads), len(others))):
            arguments = (waiting, results, stop, search)
            thread = threading.Thread(target=work, args=arguments, name=NAME, daemon=True)
            thread.start()
            started.append(thread)
        yield first
        for _ in others:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result
    finally:
        stop.set()
        until = time.monotonic() + PATIENCE_S
        for thread in started:
            thread.join(max(0.0, until - time.monotonic()))


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
        UserError: it cannot be read or searched, or there is no memory for it; names the file.
    """
    pixels = read_image(path)
    try:
        return search(pixels)
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            raise UserError(f"{path} cannot be searched for proposals: {error}") from error
        raise UserError(
            f"{path}: there is no memory to look for proposals: use fewer threads, or a smaller "
            "max_side_px of the search"
        ) from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
