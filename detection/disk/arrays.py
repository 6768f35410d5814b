"""Arrays on disk with a different number of rows an item: proposals, features, scores, boxes.

A folder holds `rows.bin`, all rows one after the other, `offsets.npy`, where each item's begin,
and `about.json`, what they are of, which is written last. They are memory-mapped: a worker pays
for the rows that it reads. There are two ways to fill one:

- `computed`: the number of rows of an item is known when it has been computed (proposals). Items
  are computed in parts, each a file; the parts are joined in the end.
- `allocated`: the numbers are known beforehand (features). Room for all is taken at once, so that
  a full disk is found before the work; each item is marked when it is done, by any process.

Either way work that was stopped goes on where it was.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from detection.disk.files import read_json, replacing, write_json
from detection.disk.locks import locked
from detection.errors import UserError

log = logging.getLogger(__name__)

ABOUT, OFFSETS, ROWS, DONE = "about.json", "offsets.npy", "rows.bin", "done.bin"
ITEMS_A_PART = 16  # finished items that one file holds until all are done

Rows: TypeAlias = NDArray[Any]
About: TypeAlias = dict[str, str]
Part: TypeAlias = tuple[Path, range]
"""A file to write with `write_part`, and the numbers of its items."""


class RaggedArray:
    """`array[i]` is (n, width), where n differs from item to item.

    Args:
        folder: of an array that was `computed` or `allocated`.

    Raises:
        UserError: it is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        kept = read_json(folder / ABOUT)
        self.about: About = kept["about"]
        self.offsets: NDArray[np.int64] = np.load(folder / OFFSETS)
        dtype, width = np.dtype(kept["dtype"]), int(kept["width"])
        shape = (int(self.offsets[-1]), width)
        wanted = shape[0] * width * dtype.itemsize
        there = (folder / ROWS).stat().st_size if (folder / ROWS).is_file() else -1
        if len(self.offsets) != kept["items"] + 1 or there != wanted:
            raise UserError(f"{folder} is damaged: delete it, and it is computed again")
        self.done: NDArray[np.uint8] = np.ones(kept["items"], np.uint8)
        if (folder / DONE).is_file() and kept["items"]:
            self.done = np.fromfile(folder / DONE, np.uint8)
        mode: Literal["r", "r+"] = "r"  # what is whole may lie on a read-only disk
        if not self.done.all():
            mode = "r+"
            self.done = np.memmap(folder / DONE, np.uint8, mode, shape=(kept["items"],))
        # an empty file cannot be mapped
        self.rows: Rows = (
            np.memmap(folder / ROWS, dtype, mode, shape=shape) if wanted else np.zeros(shape, dtype)
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, item: int) -> Rows:
        return self.rows[self.offsets[item] : self.offsets[item + 1]]

    def some(self, item: int, rows: NDArray[np.int64]) -> Rows:
        """Some rows of an item, a copy."""
        return np.asarray(self.rows[int(self.offsets[item]) + rows])

    def write(self, item: int, rows: Rows) -> None:
        """Fill in the rows of an item of an `allocated` array, and then that they are there."""
        self.rows[self.offsets[item] : self.offsets[item + 1]] = rows
        self.done[item] = 1

    @property
    def is_complete(self) -> bool:
        """Whether every item is there."""
        return bool(self.done.all())


def computed(
    folder: Path,
    about: About,
    items: int,
    compute: Callable[[Sequence[Part]], None],
    width: int,
    dtype: str = "float32",
) -> RaggedArray:
    """The array in a folder, computed first where it is not there or not whole.

    Whoever else wants the same array waits for the process that computes it.

    Args:
        folder: of this array only; its name should tell all that it depends on.
        about: what the rows are of; compared with what the folder holds.
        items: how many.
        compute: is called with the parts that are missing, and writes each (`write_part`).
        width: of a row.
        dtype: of the numbers.

    Raises:
        UserError: the folder holds something else or is damaged, or the disk is full.
    """
    if not (folder / ABOUT).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not (folder / ABOUT).exists():
                parts = [
                    (
                        folder / f"part_{start:07d}.npz",
                        range(start, min(start + ITEMS_A_PART, items)),
                    )
                    for start in range(0, items, ITEMS_A_PART)
                ]
                missing = [part for part in parts if not part[0].exists()]
                if len(missing) < len(parts):
                    done = len(parts) - len(missing)
                    log.info(
                        "%s: %d of %d parts are on disk already", folder.name, done, len(parts)
                    )
                compute(missing)
                join([file for file, _ in parts], folder, about, width, np.dtype(dtype))
    return opened(folder, about)


def opened(folder: Path, about: About) -> RaggedArray:
    """An array that must be of what is asked for.

    Raises:
        UserError: it is of something else.
    """
    array = RaggedArray(folder)
    if array.about != about:
        changed = [k for k in about if array.about.get(k) != about[k]]
        raise UserError(
            f"{folder} holds other contents, of another {', '.join(changed)} "
            f"({array.about}, not {about}): delete it, and it is computed again"
        )
    return array


def write_part(file: Path, rows: Sequence[Rows]) -> None:
    """Write the rows of some items whole, from whatever process computed them."""
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream, rows=np.concatenate(rows), counts=np.array([len(r) for r in rows], np.int64)
        )


def join(
    files: Sequence[Path], folder: Path, about: About, width: int, dtype: np.dtype[Any]
) -> None:
    """Make one array of all parts, and delete them once it stands."""
    counts = []
    for file in files:
        with np.load(file) as part:
            counts.append(part["counts"])
    per_item = np.concatenate(counts) if counts else np.zeros(0, np.int64)
    with replacing(folder / ROWS) as temporary:
        write_rows(temporary, files, dtype)
    finish(folder, about, per_item, width, dtype)
    for file in files:
        file.unlink()


def write_rows(target: Path, files: Sequence[Path], dtype: np.dtype[Any]) -> None:
    """The rows of all parts, one after the other."""
    with target.open("wb") as stream:
        for file in files:
            with np.load(file) as part:
                part["rows"].astype(dtype).tofile(stream)


def allocated(
    folder: Path, about: About, counts: NDArray[np.int64], width: int, dtype: str, remedy: str = ""
) -> RaggedArray:
    """The array in a folder; room for all its rows is taken first where it is not there.

    Args:
        folder: of this array only.
        about: what the rows are of; compared with what the folder holds.
        counts: (items,) rows of each.
        width: of a row.
        dtype: of the numbers.
        remedy: what to do where the disk has not enough room.

    Raises:
        UserError: the folder holds something else or is damaged, or the disk has no room.
    """
    if not (folder / ABOUT).exists():
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock"):
            if not (folder / ABOUT).exists():
                allocate(folder, about, counts, width, np.dtype(dtype), remedy)
    return opened(folder, about)


def allocate(
    folder: Path,
    about: About,
    counts: NDArray[np.int64],
    width: int,
    dtype: np.dtype[Any],
    remedy: str,
) -> None:
    """Take room for all rows; see `allocated`."""
    wanted = int(counts.sum()) * width * dtype.itemsize
    free = shutil.disk_usage(folder).free
    log.info(
        "%s: %d items, %d rows × %d %s = %.2f GB (%.1f GB are free) in %s",
        folder.name, len(counts), counts.sum(), width, dtype, wanted / 1e9, free / 1e9, folder,
    )  # fmt: skip
    if wanted > free:
        raise UserError(
            f"{folder} needs {wanted / 1e9:.1f} GB, but the disk has {free / 1e9:.1f} GB free"
            + (f": {remedy}" if remedy else "")
        )
    for name, size in ((ROWS, wanted), (DONE, len(counts))):
        with replacing(folder / name) as temporary, temporary.open("wb") as file:
            if size and hasattr(os, "posix_fallocate"):  # a full disk is found here
                os.posix_fallocate(file.fileno(), 0, size)
            else:  # macOS has no such call
                file.truncate(size)
    finish(folder, about, counts, width, dtype)


def finish(
    folder: Path, about: About, counts: NDArray[np.int64], width: int, dtype: np.dtype[Any]
) -> None:
    """Write where each item's rows are, and last of all what the array is of."""
    with replacing(folder / OFFSETS) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    kept = {"items": len(counts), "width": width, "dtype": dtype.name, "about": about}
    write_json(folder / ABOUT, kept)


def fingerprint(*settings: object, files: Sequence[Path] = ()) -> str:
    """Twelve hexadecimal digits that stand for settings, and for files by name, size and time."""
    digest = hashlib.sha256("\n".join(map(str, settings)).encode())
    for path in files:
        stat = path.stat()
        digest.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:12]


def fingerprint_of(about: Mapping[str, str]) -> str:
    """The fingerprint of what an array is of."""
    return fingerprint(sorted(about.items()))
