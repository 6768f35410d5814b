"""Compiled functions: made once a machine, in the first process, and kept in the user's cache."""

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from filelock import FileLock

log = logging.getLogger(__name__)

KERNELS = ("graph_segmentation.py", "grouping.py")  # a change of one is a new cache

Function = TypeVar("Function", bound=Callable[..., Any])


def cache_folder() -> Path | None:
    """The folder of machine code, of these sources only; None where none can be written.

    `NUMBA_CACHE_DIR` chooses another place than the user's cache.
    """
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in KERNELS)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    place = Path(os.environ.get("NUMBA_CACHE_DIR") or Path(home) / "detection" / "compiled")
    folder = place / hashlib.sha256(sources).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return None


FOLDER = cache_folder()


def kernel(function: Function) -> Function:
    """A function as machine code that holds no lock of Python's, so that threads run it at once."""
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = str(FOLDER or before)  # read while the function is wrapped
    try:
        made: Function = numba.njit(function, nogil=True, cache=FOLDER is not None)
    finally:
        config.CACHE_DIR = before
    return made


def compile_once(use_all: Callable[[], object]) -> None:
    """Compile what is not in the cache yet, while other processes that want the same wait.

    Args:
        use_all: calls every kernel, with arguments of the types that it will be called with.
    """
    if FOLDER is None:
        log.info("selective search is compiled for this process (its cache cannot be written)")
        use_all()
        return
    with FileLock(FOLDER / "lock"):
        if not any(FOLDER.rglob("*.nbc")):
            log.info("compiling selective search, once on this machine (about 20 s) -> %s", FOLDER)
        try:
            use_all()
        except Exception:  # damaged, whatever the reader of the day calls it
            log.warning("the compiled code in %s is damaged: compiling it again", FOLDER)
            for entry in FOLDER.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
            use_all()
