"""What the process keeps of freed memory, and gives back between stages."""

import subprocess
import sys

import pytest

SCRIPT = """
import torch
from detection.runtime.memory import keep_freed_memory, return_freed_memory

def resident():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("RssAnon")]
    return int(line.split()[1]) // 1024

keep_freed_memory()
start = resident()
large = torch.ones(100_000_000)
small = torch.ones(100)  # above it on the heap
del large
print(resident() - start)
return_freed_memory()
print(resident() - start)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept_until_it_is_asked_for():
    """Of 381 MiB."""
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    kept, after = map(int, run.stdout.split())
    assert kept > 350
    assert after < 50
