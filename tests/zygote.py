"""A process that has imported what every run imports, and forks into each that a test asks for.

Importing takes longer than a tiny run does. It reads a line of JSON for each run (`script`,
`words`, `stdout`, `stderr`: files), and answers with the process's number, then its exit code.
"""

import json
import os
import runpy
import sys
import traceback

sys.path.insert(0, os.getcwd())

import pytorch_lightning  # noqa: F401
import torchvision  # noqa: F401

import detection.data.folders.own_folders
import detection.data.ilsvrc.classification
import detection.proposals.selective_search
import detection.regions.svm_stage
import detection.runs.evaluate
import detection.runs.train  # noqa: F401


def become(script: str, words: list[str], stdout: str, stderr: str) -> int:
    """Run a script as a process of its own would; its exit code."""
    for file, stream in ((stdout, 1), (stderr, 2)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [script, *words]
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        asked = json.loads(line)
        number = os.fork()
        if number == 0:
            answers.close()
            code = become(**asked)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(number, file=answers, flush=True)
        _, status = os.waitpid(number, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


if __name__ == "__main__":
    main()
