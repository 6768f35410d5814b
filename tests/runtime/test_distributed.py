"""Which process writes: on one machine, on several, under SLURM."""

import json
import os
import subprocess
import sys

from conftest import ROOT

KNOWN = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID", "WORLD_SIZE")
CASES = [
    ({}, True),
    ({"RANK": "0", "LOCAL_RANK": "0"}, True),
    ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the second node of torchrun
    ({"LOCAL_RANK": "1"}, False),  # Lightning's own second process
    ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, False),  # Lightning on a second node
    ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
    ({"SLURM_PROCID": "3", "SLURM_LOCALID": "0"}, False),
]
# Lightning reads the environment when it is imported: each case imports it in a process of its own,
# which inherits what is slow to import beneath it.
CODE = """
import json, os, sys
import torch, torchmetrics, torchvision
assert "pytorch_lightning" not in sys.modules
for environment in json.loads(sys.argv[1]):
    number = os.fork()
    if number == 0:
        os.environ.update(environment)
        from detection.runtime.distributed import is_first_process
        print(is_first_process(), flush=True)
        os._exit(0)
    assert os.waitpid(number, 0)[1] == 0
"""


def test_there_is_one_first_process():
    bare = {k: v for k, v in os.environ.items() if k not in KNOWN}
    environments = json.dumps([environment for environment, _ in CASES])
    result = subprocess.run(
        [sys.executable, "-c", CODE, environments], cwd=ROOT, env=bare, text=True,
        capture_output=True, check=True,
    )  # fmt: skip
    assert result.stdout.split() == [str(first) for _, first in CASES]
