"""Threads that look for proposals: what stops them, and what they leave."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from detection.errors import UserError
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
        find_all(parts, one_box, 2, "a")
    wait_for(lambda: not searching())
    assert parts[0][0].exists()
    assert not parts[2][0].exists()


def test_what_is_interrupted_ends_with_the_picture_it_is_at(parts):
    begun = []

    def slow(image):
        begun.append(image.shape)
        time.sleep(0.05)
        return one_box(image)

    jobs = [(0, i, path) for _, images in parts for i, path in enumerate(images)]
    results = searched(jobs, slow, 2)
    next(results)
    results.close()  # as Ctrl-C does, where the caller waits
    wait_for(lambda: not searching())
    assert len(begun) <= 5


def test_no_memory_is_told_with_the_picture_and_the_remedy(parts):
    def too_large(image):
        raise MemoryError

    with pytest.raises(UserError, match=r"\.png: there is no memory .*threads=1.*max_side"):
        find_all(parts, too_large, 1, "a")


SLEEPER = """
import sys, time
from pathlib import Path
from detection.proposals.pool import find_all
files = sorted(Path(sys.argv[1]).glob("*.png"))
def slow(image):
    print("begun", flush=True)
    time.sleep(60)
find_all([(Path(sys.argv[1]) / "part.npz", files)], slow, 2, "a")
"""


def test_ctrl_c_is_answered_within_a_second(parts, tmp_path):
    """However long a picture takes: no thread keeps the process alive."""
    import signal

    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - start < 3  # a second here, where nothing else runs
    assert not (tmp_path / "part.npz").exists()
