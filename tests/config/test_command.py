"""What a command says when it fails, and the exit code it leaves."""

import errno
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT

from detection.config.command import explain, run
from detection.errors import TrainingError, UserError


def failing(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no such folder"), 2, "error: no such folder"),
        (TrainingError("not a number"), 1, "error: not a number"),
        (KeyboardInterrupt(), 130, "interrupted: start again"),
        (OSError(errno.ENOSPC, "No space left on device", "a", None, "run/last.ckpt"), 2,
         "error: run/last.ckpt could not be written: No space left on device"),
        (OSError(errno.ENOSPC, "No space left on device", "run/metrics.csv"), 2,
         "error: run/metrics.csv could not be written"),
    ],
)  # fmt: skip
def test_a_message_and_an_exit_code(error, code, message, capsys, monkeypatch):
    monkeypatch.setattr(os, "_exit", sys.exit)  # after Ctrl-C the process ends at once
    with pytest.raises(SystemExit) as left:
        run(failing(error))
    assert left.value.code == code
    assert message in capsys.readouterr().err


def test_other_errors_keep_their_traceback():
    with pytest.raises(OSError, match="Input/output error"):
        run(failing(OSError(errno.EIO, "Input/output error")))


def test_what_choices_share_is_no_choice():
    error = Exception(
        "In 'train': Could not find 'data/cow'\n\nAvailable options in 'data':\n"
        "\t_base\n\tvoc\n\tvoc07\nConfig search path:\n\tprovider=hydra"
    )
    assert explain(error) == "there is no data=cow; data can be: voc, voc07"


WAIT = """
import sys, time
from detection.config.command import run
class Last:
    def __del__(self):
        print("deleting", flush=True)
        time.sleep(1)
def main():
    if "delete" in sys.argv:
        Last()
    print("working", flush=True)
    time.sleep(30)
run(main)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", ["working", "deleting"])
def test_signals_end_a_command_and_are_never_lost(number, where):
    """In a `__del__` too, where Python drops the exception; twice as well as once."""
    command = [sys.executable, "-c", WAIT, *(["delete"] if where == "deleting" else [])]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == f"{where}\n"
    process.send_signal(number)
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 130
    assert errors == "interrupted: start again with the same run_dir= to go on\n"
