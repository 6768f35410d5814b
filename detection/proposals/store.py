"""Proposals of a data set on disk: one memory-mapped array, written whole, resumable."""

import fcntl
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.disk.files import read_json, replacing, write_json
from detection.errors import UserError
from detection.proposals.pool import find_all

log = logging.getLogger(__name__)

IMAGES_A_PART = 16  # finished images that one file holds until all are done


class ProposalStore:
    """Boxes of every image of a data set: `store[index]` is (P, 4) float32.

    Args:
        folder: a finished store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        about = read_json(folder / "store.json")
        self.boxes = np.load(folder / "boxes.npy", mmap_mode="r")
        self.offsets = np.load(folder / "offsets.npy")
        if len(self.offsets) != about["images"] + 1 or self.offsets[-1] != len(self.boxes):
            raise UserError(f"{folder} is damaged: delete it, and it is computed again")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        start, stop = self.offsets[index : index + 2]
        return np.array(self.boxes[start:stop])


def open_store(
    cache: Path,
    name: str,
    paths: Sequence[Path],
    search: Callable[[Any], NDArray[np.float32]],
    processes: int,
) -> ProposalStore:
    """The proposals of some images, computed first where they are not on disk yet.

    The store's name holds a hash of the search's settings and of the images' names, sizes and
    times, so another setting or a changed image gives another store. Work goes on where it
    stopped; processes that want the same store wait for the one that computes it.

    Args:
        cache: folder of all stores.
        name: what a person calls the data, such as "voc07-test".
        paths: the images, in the data set's order.
        search: a picklable function from an RGB array to (P, 4) boxes; its repr tells its settings.
        processes: how many compute.
    """
    folder = cache / "proposals" / f"{name}-{fingerprint(paths, repr(search))}"
    if not (folder / "store.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not (folder / "store.json").exists():
                compute(folder, paths, search, processes)
    return ProposalStore(folder)


def fingerprint(paths: Sequence[Path], settings: str) -> str:
    """Twelve hexadecimal digits that stand for settings and images."""
    digest = hashlib.sha256(settings.encode())
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def compute(
    folder: Path,
    paths: Sequence[Path],
    search: Callable[[Any], NDArray[np.float32]],
    processes: int,
) -> None:
    """Find the proposals of all images, part by part, and join the parts."""
    parts = [
        (folder / f"part_{start:07d}.npz", paths[start : start + IMAGES_A_PART])
        for start in range(0, len(paths), IMAGES_A_PART)
    ]
    waiting = [(part, images) for part, images in parts if not part.exists()]
    if len(waiting) < len(parts):
        log.info(
            "proposals: %d of %d parts are on disk already", len(parts) - len(waiting), len(parts)
        )
    find_all(waiting, search, processes, title=f"proposals {folder.name}")
    join([part for part, _ in parts], folder, repr(search))


def join(parts: Sequence[Path], folder: Path, settings: str) -> None:
    """Make one array of all parts, and delete them once it stands."""
    counts = []
    for part in parts:
        with np.load(part) as arrays:
            counts.append(arrays["counts"])
    per_image = np.concatenate(counts)
    offsets = np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64)
    with replacing(folder / "boxes.npy") as temporary:
        joined = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(int(offsets[-1]), 4)
        )
        start = 0
        for part in parts:
            with np.load(part) as arrays:
                boxes = arrays["boxes"]
            joined[start : start + len(boxes)] = boxes
            start += len(boxes)
        joined.flush()
        del joined
    with replacing(folder / "offsets.npy") as temporary, temporary.open("wb") as file:
        np.save(file, offsets)
    write_json(folder / "store.json", {"images": len(per_image), "settings": settings})
    for part in parts:
        part.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock; whoever else wants it waits. The system frees it if this process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process computes %s: waiting for it", path.parent.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
