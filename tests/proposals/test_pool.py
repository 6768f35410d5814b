"""Threads that look for proposals: what stops them, and what they leave."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from detection.errors import UserError
from detection.proposals import pool
from detection.proposals.pool import find_all, searched


@pytest.fixture
def parts(tmp_path):
    files = []
    for number in range(12):
        files.append(tmp_path / f"{number:02d}.png")
        Image.new("RGB", (number + 1, 4)).save(files[-1])
    return [(tmp_path / f"part_{n}.npz", files[4 * n : 4 * n + 4]) for n in range(3)]


def one_box(image):
    return np.tile(np.float32([0, 0, 1, 1]), (image.shape[1], 1))


def searching():
    return [thread for thread in threading.enumerate() if thread.name == "proposals"]


def wait_for(condition, seconds=5):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_parts_hold_their_images_in_order(parts, threads):
    find_all(parts, one_box, threads, "a")
    for number, (file, _) in enumerate(parts):
        with np.load(file) as part:
            assert part["counts"].tolist() == list(range(4 * number + 1, 4 * number + 5))


def test_nothing_to_do(parts):
    find_all([], one_box, 2, "a")
    assert not searching()


def test_an_error_ends_all_threads_and_keeps_what_is_finished(parts):
    parts[2][1][3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"11\.png cannot be decoded"):
        find_all(parts, one_box, 1, "a")  # in order
    wait_for(lambda: not searching())
    assert parts[0][0].exists()
    assert parts[1][0].exists()
    assert not parts[2][0].exists()


def test_what_is_interrupted_ends_with_the_picture_it_is_at(parts, monkeypatch):
    monkeypatch.setattr(pool, "PATIENCE_S", 0.05)
    go, begun = threading.Event(), []

    def held(image):
        begun.append(image.shape)
        if len(begun) > 1:  # the first is found before any thread starts
            go.wait(30)
        return one_box(image)

    jobs = [(0, i, path) for _, images in parts for i, path in enumerate(images)]
    results = searched(jobs, held, 2)
    next(results)
    wait_for(lambda: len(begun) == 3)
    results.close()  # as Ctrl-C does, where the caller waits
    go.set()
    wait_for(lambda: not searching())
    assert len(begun) == 3


def test_the_first_picture_is_searched_before_any_thread_starts(parts):
    """What is compiled or loaded once is compiled by one."""
    at = []

    def where(image):
        at.append(threading.current_thread() is threading.main_thread())
        return one_box(image)

    find_all(parts, where, 3, "a")
    assert at[0]
    assert not any(at[1:])


def test_no_memory_is_told_with_the_picture_and_the_remedy(parts):
    def too_large(image):
        raise MemoryError

    with pytest.raises(UserError, match=r"00\.png: there is no memory .*fewer threads.*max_side"):
        find_all(parts, too_large, 1, "a")


SEARCH = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # under nohup it is ignored
from pathlib import Path
from detection.config.command import run
from detection.proposals.pool import find_all
from detection.proposals.selective_search import SelectiveSearch
engine, folder = sys.argv[1:]
files = sorted(Path(folder).glob("*.jpg"))
search = SelectiveSearch(engine=engine)
def told(image):
    os.write(1, b"begun\\n")  # whole, whichever thread writes
    return search(image)
run(lambda: find_all([(Path(folder) / "part.npz", files)], told, 2, "a"))
"""


@pytest.fixture
def photographs(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(40):
        coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / f"{number:02d}.jpg")
    return tmp_path


def begun_search(engine, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SEARCH, engine, str(folder)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    for _ in range(4):
        assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("engine", ["own", "opencv"])
def test_ctrl_c_is_answered_at_once(photographs, engine):
    process = begun_search(engine, photographs)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "interrupted: start again" in errors
    assert time.monotonic() - start < 5  # about a second where nothing else runs
    assert not (photographs / "part.npz").exists()


@pytest.mark.parametrize("engine", ["own", "opencv"])
def test_a_bad_picture_leaves_the_code_of_a_mistake(photographs, engine):
    (photographs / "05.jpg").write_bytes(b"no image")
    process = begun_search(engine, photographs)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert "05.jpg cannot be decoded" in errors
