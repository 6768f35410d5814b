"""Which process writes: on one machine, on several, under SLURM."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

KNOWN = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "WORLD_SIZE")


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the second node of torchrun
        ({"LOCAL_RANK": "1"}, False),  # Lightning's own second process
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),  # Lightning on a second node
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
    ],
)
def test_there_is_one_first_process(environment, first):
    code = "from detection.runtime.distributed import is_first_process\nprint(is_first_process())"
    bare = {k: v for k, v in os.environ.items() if k not in KNOWN}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**bare, **environment}, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert result.stdout.strip() == str(first)
