"""One process at a time: a run's folder, what is made once for many runs, what was left behind."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest
from conftest import ROOT

from detection.disk.files import part_of, replacing, write_text
from detection.disk.locks import held, locked
from detection.errors import UserError

NO_LOCKS = OSError(errno.ENOLCK, "No locks available")
HOLD = """
import sys, time, os
from pathlib import Path
from detection.disk.locks import held
with held(Path(sys.argv[1])):
    if os.fork():
        print("held", flush=True)
    time.sleep(60)
"""
DRAW = """
import sys
from pathlib import Path
from detection.data.shapes.draw import draw_shapes
print(draw_shapes(None, sys.argv[1], train=12, val=2, test=2))
"""


def start(code, *words):
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                            start_new_session=True)  # fmt: skip


def test_a_folder_in_use_is_refused_until_its_process_dies(tmp_path):
    """By kill -9 too, and whatever it has forked goes on."""
    process = start(HOLD, tmp_path / "run")
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"in use by process {process.pid} on "), \
             held(tmp_path / "run"):  # fmt: skip
            pass
        process.kill()
        process.wait()
        with held(tmp_path / "run"):
            assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} ")
        assert list((tmp_path / "run").iterdir()) == []
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="cannot be written"), held(tmp_path / "run"):
        pass


def test_runs_that_draw_the_same_at_once(tmp_path):
    """Each gets the whole data set, and nothing else is left."""
    processes = [start(DRAW, tmp_path) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0, 0]
    (folder,) = said
    images = os.listdir(os.path.join(folder.strip(), "JPEGImages"))
    assert len(images) == 16
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".part"] == []


def test_what_a_killed_process_left_is_taken_away(tmp_path):
    path = tmp_path / "metrics.json"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f".metrics.json.{socket.gethostname()}.{dead.pid}.part"
    other = tmp_path / f".metrics.json.elsewhere.{dead.pid}.part"
    living = tmp_path / f".metrics.json.{socket.gethostname()}.{os.getppid()}.part"
    for file in (left, other, living):
        file.write_text("half")
    write_text(path, "whole")
    assert not left.exists()
    assert other.exists()
    assert living.exists()
    left.write_text("half")
    write_text(path, "once more")
    assert left.exists()  # a folder is looked through once, for it may hold 10,000 files
    with replacing(path) as temporary:
        assert temporary == part_of(path)
        temporary.write_text("new")
    assert path.read_text() == "new"


def test_where_the_file_system_has_no_locks_a_run_goes_on(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise NO_LOCKS

    for name in ("lockf", "flock"):
        monkeypatch.setattr(fcntl, name, refuse)
    with held(tmp_path / "run"), locked(tmp_path / "file"):
        pass
    assert caplog.text.count("this file system has no locks") == 2
