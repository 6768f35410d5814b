"""Compiled functions: made once a machine, in the first process, and kept in the user's cache."""

import errno
import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba
from filelock import FileLock
from llvmlite.binding import get_host_cpu_name

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parents[1]
KERNELS = (  # a change of one is a new cache
    "runtime/compiled.py",
    "proposals/graph_segmentation.py",
    "proposals/grouping.py",
    "combine/merging.py",
)

Function = TypeVar("Function", bound=Callable[..., Any])


def cache_folder() -> Path | None:
    """The folder of machine code, of these sources only; None where none can be written.

    `NUMBA_CACHE_DIR` chooses another place than the user's cache.
    """
    sources = [PACKAGE / name for name in KERNELS]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources))
    stamps = [(str(source), source.stat().st_mtime_ns) for source in sources]
    # all that the compiler asks of what it finds: what is there can be used, or is damaged
    digest.update(repr((stamps, numba.__version__, get_host_cpu_name(), sys.version)).encode())
    chosen, home = os.environ.get("NUMBA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    try:
        caches = Path(home) if home else Path.home() / ".cache"
        place = Path(chosen) if chosen else caches / "detection" / "compiled"
        folder = place / digest.hexdigest()[:12]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # there may be no home
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


def compile_once(use_all: Callable[[], object], what: str, seconds: int) -> None:
    """Compile what is not in the cache yet, while other processes that want the same wait.

    Args:
        use_all: calls every kernel, with arguments of the types that it will be called with.
        what: is compiled, for messages.
        seconds: that it takes, about.
    """
    if FOLDER is None:
        log.info("%s is compiled for this process (its cache cannot be written)", what)
        use_all()
        return
    is_compiled = FOLDER / f"{what.replace(' ', '_')}.done"
    with FileLock(FOLDER / "lock"):
        if not is_compiled.is_file():
            log.info("compiling %s, once on this machine (about %d s) -> %s", what, seconds, FOLDER)
        try:
            use_all()
        except Exception as error:  # damaged, whatever the reader of the day calls it
            full = isinstance(error, OSError) and error.errno == errno.ENOSPC
            if full or isinstance(error, MemoryError):
                raise
            log.warning(
                "the compiled code in %s cannot be used (%s: %s): compiling it again",
                FOLDER, type(error).__name__, error,
            )  # fmt: skip
            for entry in FOLDER.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
            use_all()
        is_compiled.touch()
