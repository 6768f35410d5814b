"""Files that are written whole or not at all."""

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from detection.disk.locks import is_running
from detection.errors import UserError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends well.

    Raises:
        UserError: the disk is full or the folder cannot be written; nothing is left over.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = part_of(path)
        clean_parts(path.parent)
    except OSError as error:
        raise UserError(f"{path} could not be written: {error.strerror}") from None
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} could not be written: {error.strerror or error}. Free some space, or choose "
            "another folder with paths.runs= or paths.cache=; what was finished is kept."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def part_of(path: Path) -> Path:
    """Where this process writes what is to become a file or a folder."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.part")


@cache
def clean_parts(folder: Path) -> None:
    """Take away what processes of this machine left in a folder when they were killed.

    Once for each folder that a process writes in: some hold a picture for each of 10,000 images.
    """
    end = re.compile(rf"\.{re.escape(socket.gethostname())}\.(\d+)\.part")
    for part in folder.glob(".*.part"):
        pid = end.search(part.name)
        if pid is None or is_running(int(pid[1])):
            continue
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            with suppress(OSError):  # another user's, in a folder of all
                part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole; what is no number becomes null, for JSON has no NaN."""
    write_text(path, json.dumps(with_nulls(value), indent=1, allow_nan=False) + "\n")


def with_nulls(value: Any) -> Any:
    """A value of JSON's kinds with None for NaN and infinity.

    >>> with_nulls({"a": [float("nan"), 1.5]})
    {'a': [None, 1.5]}
    """
    if isinstance(value, dict):
        return {key: with_nulls(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_nulls(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_figures(path: Path) -> dict[str, float]:
    """The figures of a `metrics.json`; null is NaN.

    Raises:
        UserError: it is missing or damaged.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(
        value is None or isinstance(value, int | float) for value in content.values()
    ):
        raise UserError(f"{path} holds no figures: delete it, and start the run again")
    return {key: math.nan if value is None else float(value) for key, value in content.items()}


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path} line {error.lineno} is not JSON ({error.msg}): delete it to have it made anew"
        ) from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it") from None
