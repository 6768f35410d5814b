"""What a command says when it fails, and the exit code it leaves."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from functools import partial

import pytest
from conftest import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser

from detection.config.command import explain, run
from detection.config.typed import check_typed
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


@pytest.mark.parametrize(("number", "path", "words", "message"), [
    (errno.EEXIST, "/a/run", ["run_dir=/a/run"], "error: run_dir=/a/run: /a/run cannot be made"),
    (errno.ENOTDIR, "/b/cache/x/1", ["seed=1", "paths.cache=/b/cache"],
     "error: paths.cache=/b/cache: /b/cache/x/1 cannot be made"),
    (errno.EROFS, "/c/runs", [], "choose other folders with run_dir="),
])  # fmt: skip
def test_a_folder_that_cannot_be_made(number, path, words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    with pytest.raises(SystemExit) as left:
        run(failing(OSError(number, os.strerror(number), path)))
    assert left.value.code == 2
    assert message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError):  # of our own, not of a folder that was named
        run(failing(OSError(errno.ENOENT, "none", "/elsewhere")))


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
def test_a_signal_ends_what_waits_in_machine_code(number):
    """As for a process of the run that never comes: Python's own handler is not called there."""
    code = (
        "import hashlib\nfrom detection.config import command\ncommand.ANSWER_S = 0.3\n"
        "def main():\n    print('begun', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)\n"
        "command.run(main)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted: start again")


def test_a_process_whose_other_has_ended_says_so_in_a_line(capsys):
    lost = RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:1")
    with pytest.raises(SystemExit) as ended:
        run(failing(lost))
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("error: another process of this run has ended")
    with pytest.raises(RuntimeError, match="something else"):
        run(failing(RuntimeError("something else")))


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


@pytest.mark.parametrize(("script", "word", "answer"), [
    ("train.py", "--epochs", "options are NAME=VALUE, each stage has its own; schedule="),
    ("train.py", "--data", "such as data=..."),
    ("train.py", "--batch-size=8", "each stage has its own"),
    ("train.py", "train.py", "leave it out"),
    ("train.py", "data/voc07", "data=voc07"),
    ("train.py", "sppnet", "model=sppnet"),
    ("train.py", "tests", "data=voc data.root=tests"),
    ("evaluate.py", "runs/x", "ckpt=runs/x"),
    ("train.py", "data.root=/a/p=x y", "'data.root=\"/a/p=x y\"'"),
    ("train.py", "data.root=a[1]", "'data.root=\"a[1]\"'"),
])  # fmt: skip
def test_what_newcomers_type_is_answered_with_what_they_mean(script, word, answer, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError) as told:
        check_typed(script, [word])
    assert answer in str(told.value)


def test_a_quoted_word_is_read():
    """The remedy that is shown, followed: as a shell hands it on."""
    for value in ("/a/p=x", "a[1]", "it's", 'say "a"', "a b", "back\\slash", "über#x"):
        try:
            check_typed("train.py", [f"data.root={value}"])
        except UserError as told:
            (word,) = shlex.split(str(told).rpartition("Hydra: ")[2])
            check_typed("train.py", [word])
            read = OverridesParser.create().parse_override(word).value()
            assert str(read) == value


def test_what_hydra_takes_is_left_alone():
    words = ["--cfg", "job", "-m", "seed=1,2", "+trainer.profiler=simple", "~logger.wandb", "-cn",
             "other", "data=voc07", "data.root=/a b", "--info=all"]  # fmt: skip
    check_typed("train.py", words)


@pytest.mark.parametrize(("key", "answer"), [
    ("epochs", "model.stages.pretrain.epochs"), ("batch_size", "model.stages.finetune.batch_size="),
    ("lr", "model.stages.finetune.optimizer.lr="), ("imgsz", "model.features.scales_px="),
    ("trainer.max_epochs", "schedule="), ("gpus", "trainer=gpu trainer.devices=1"),
    ("resume", "run_dir=RUN"), ("device", "trainer=gpu"),
])  # fmt: skip
def test_other_programs_names_of_options(key, answer):
    assert answer in explain(Exception(f"Could not override '{key}'."))


@pytest.mark.parametrize(("group", "name", "answer"), [
    ("model", "resnet50", "backbone=resnet50"), ("data", "VOC07", "did you mean voc07"),
])  # fmt: skip
def test_choices_of_another_group_or_case(group, name, answer):
    listing = "\n".join(f"\t{n}" for n in ("sppnet", "rcnn", "voc07", "voc"))
    text = f"Could not find '{group}/{name}'\n\nAvailable options:\n{listing}\n"
    assert answer in explain(Exception(text))


def test_a_run_outlives_who_reads_its_output(tmp_path):
    """`| head -1`: what is logged afterwards is lost on the screen alone, without a word."""
    code = (
        "import logging, sys, time\n"
        "from detection.config.command import run\n"
        "def main():\n"
        "    logging.basicConfig(stream=sys.stdout, format='%(message)s', level=20)\n"
        "    for n in range(50):\n"
        "        logging.info('line %d', n); time.sleep(0.01)\n"
        f"    open({str(tmp_path / 'done')!r}, 'w').close()\n"
        "run(main)\n"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -1"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True,
                            check=False)  # fmt: skip
    assert result.stdout == "line 0\n"
    assert result.stderr == ""
    assert (tmp_path / "done").is_file()
