"""Locks of files: one process at a time makes or keeps something. A lock dies with its process."""

import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from detection.errors import UserError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock; whoever else wants it waits. The system frees it if this process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process makes %s: waiting for it", path.parent.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            go_on_without(path, error)
        yield


def go_on_without(path: Path, error: OSError) -> None:
    """Some file systems of clusters have no locks: a run works there, if it is alone.

    Raises:
        OSError: it says something else.
    """
    if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
        raise error
    log.warning(
        "%s: this file system has no locks (%s): see to it that no other run uses the folder",
        path.parent, error.strerror,
    )  # fmt: skip


@contextmanager
def held(run_dir: Path) -> Iterator[None]:
    """Keep a run's folder for this process alone.

    The lock is the process's own: those that it forks do not have it, and so do not keep it when
    it is killed. (It falls when this process closes any other opening of the file: let nothing
    here read it.)

    Raises:
        UserError: another process has it, which is named; or the folder cannot be written.
    """
    path = run_dir / ".lock"
    with opened_lock(path) as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = path.is_file() and path.stat().st_ino == os.fstat(file.fileno()).st_ino
        except (BlockingIOError, PermissionError):
            is_ours = False
        except OSError as error:
            go_on_without(path, error)
            is_ours = True
        if not is_ours:  # or it was taken away by a process that ends at this moment
            file.seek(0)
            raise UserError(
                f"run_dir={run_dir} is in use by {file.read().strip() or 'another process'}: wait "
                "for it to end, or choose another run_dir"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def opened_lock(path: Path) -> IO[str]:
    """The file of a lock, made where it is not there.

    Raises:
        UserError: its folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+")
    except OSError as error:
        raise UserError(
            f"run_dir={path.parent} cannot be written ({error.strerror}): choose another"
        ) from None


def is_running(pid: int) -> bool:
    """Whether a process of this machine is alive."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
