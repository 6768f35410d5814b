"""Runs `train.py` and `evaluate.py` as a user does, in a tiny setting."""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

from conftest import ROOT

TINY = [
    "data=shapes",
    "backbone=zf5_small",
    "trainer=cpu",
    "logger=csv",
    "debug=fast",
    "data.threads=1",
    "model.features.scales_px=[120]",
    "proposals.search.max_boxes=null",
    "data.limit=null",
    "data.source.train=25",
    "data.source.val=4",
    "data.source.test=9",
    "model.stages.finetune.length.min_steps=6",
]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def command(script, *words):
    """What a user types."""
    return [sys.executable, script, *words]


@cache
def zygote(*under):
    """The process that forks into runs (see `zygote.py`), one for all tests of this process."""
    process = subprocess.Popen(
        [sys.executable, *under, str(ROOT / "tests" / "zygote.py")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD},
    )
    atexit.register(process.kill)
    return process


def run(script, *words, check=True, timeout=300, under=()):
    """The finished process, with what it printed.

    `under`: a program that runs other programs, and its arguments.
    """
    process = zygote(*under)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: str(Path(folder) / name) for name in ("stdout", "stderr")}
        print(
            json.dumps({"script": script, "words": words, **files}), file=process.stdin, flush=True
        )
        number = int(process.stdout.readline())
        late = threading.Timer(timeout, os.kill, (number, signal.SIGKILL))
        late.start()
        code = int(process.stdout.readline())
        late.cancel()
        printed = {name: Path(file).read_text() for name, file in files.items()}
    result = subprocess.CompletedProcess(command(script, *words), code, **printed)
    assert not check or code == 0, result.stdout + result.stderr
    return result


def figures(folder):
    """What a run measured, times and the model's size apart."""
    metrics = json.loads((Path(folder) / "metrics.json").read_text())
    return {k: v for k, v in metrics.items() if not k.startswith(("time/", "model/"))}


def kill_when(sign, *words):
    """Start a training, and kill -9 it as soon as `sign()` is true."""
    process = subprocess.Popen(
        command("train.py", *words),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **ONE_THREAD},
    )
    deadline = time.monotonic() + 200
    while not sign():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
