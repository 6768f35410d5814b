"""Time of `train.py --help`, `--cfg job` and a mistake in the config; peer: Python's own start."""

import subprocess
import sys
from pathlib import Path

from benchmarks.timing import compare

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> int:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, check=False).returncode


def main() -> None:
    cases = {
        "--help": ["--help"],
        "--cfg job": ["--cfg", "job"],
        "unknown option": ["model.laier=fc6"],
        "unknown choice": ["model=spnet"],
        "wrong type": ["model.features.shrink_px=wide", "run_dir=/tmp/start_up_benchmark"],
    }
    for name, words in cases.items():
        compare(
            name,
            lambda w=words: run("train.py", *w),
            "python -c pass",  # type: ignore[misc]
            lambda: run("-c", "pass"),
            runs=5,
        )


if __name__ == "__main__":
    main()
