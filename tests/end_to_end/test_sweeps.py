"""Sweeps: each job a run of its own, in its folder and in W&B."""

import json
import struct

import pytest
from commands import TINY, run
from wandb.proto import wandb_internal_pb2

SHORT = [*TINY, "model.scoring=softmax", "model.stages.box_regression=null"]


def records_of(file):
    """The records of a ``.wandb`` file, which is LevelDB's log behind a header of 7 bytes.

    Blocks of 32 KiB, each of pieces: a checksum of 4 bytes, a length of 2, a kind of 1 (1 whole,
    2 first, 3 middle, 4 last) and the piece.
    """
    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too short for a header: the block's end is padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def runs_of(folder):
    """W&B's runs in a folder, read back from the files that wait to be uploaded."""
    files = sorted(folder.glob("*/wandb/offline-run-*/*.wandb"))
    return [
        next(record.run for record in records_of(file) if record.HasField("run")) for file in files
    ]


def test_jobs_of_a_sweep_are_wandb_runs_of_their_own(paths, tmp_path, monkeypatch):
    """In one process, one after the other: two ids, two names, one group."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [word for word in SHORT if not word.startswith("logger")]
    run("train.py", "-m", "seed=1,2", *words, "logger=wandb", *paths, f"paths.runs={tmp_path}")
    (sweep,) = tmp_path.glob("sweep_*")
    jobs = runs_of(sweep)
    assert len(jobs) == 2
    assert len({job.run_id for job in jobs}) == 2
    assert len({job.display_name for job in jobs}) == 2
    assert [f"seed={n}" in job.display_name for n, job in enumerate(jobs, 1)] == [True, True]
    assert {job.run_group for job in jobs} == {sweep.name}
    for number in (0, 1):
        metrics = json.loads((sweep / str(number) / "metrics.json").read_text())
        assert "val/map" in metrics  # what a sweep chooses by


@pytest.mark.slow
def test_jobs_of_two_processes_too(paths, tmp_path, monkeypatch):
    """Each job is a process of its own, so its second process does not run the sweep again."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    words = [word for word in SHORT if not word.startswith(("logger", "trainer"))]
    words += ["trainer=ddp_cpu", "logger=wandb", *paths, f"paths.runs={tmp_path}"]
    run("train.py", "-m", "seed=1,2", *words)
    (sweep,) = tmp_path.iterdir()
    assert len(list(sweep.glob("*/metrics.json"))) == 2
    jobs = runs_of(sweep)
    assert len({job.run_id for job in jobs}) == 2
    assert {job.run_group for job in jobs} == {sweep.name}
