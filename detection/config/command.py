"""What a command says when it fails, and the exit code it leaves. Imports nothing slow."""

import ctypes
import errno
import logging
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

import detection.config.help  # noqa: F401  (what `--help` asks for)
from detection.config.names import did_you_mean, renamed
from detection.config.plain import CONF
from detection.config.typed import check_typed, meant
from detection.errors import TrainingError, UserError

USER_MISTAKE = 2
FAILED = 1
INTERRUPTED = 130
ANSWER_S = 5.0  # for which machine code may keep Python from answering a signal
PR_SET_PDEATHSIG = 1  # linux/prctl.h
# how gloo and NCCL say that another process has gone
LOST = ("Connection closed by peer", "Connection reset by peer", "NCCL communicator was aborted")
STOPPED = "interrupted: start again with the same run_dir= to go on"


def run(main: Callable[[], object], composes: bool = False) -> None:
    """Run a command and leave the process with its exit code.

    0 when it finished, 2 for a mistake in what the user gave (a message, no traceback;
    `debug=trace` shows it), 1 for any other failure, 130 after Ctrl-C or SIGTERM.

    Args:
        main: of the command.
        composes: its words are Hydra's, and are looked at first.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through to this function
    end_with_first()
    take_signals()
    outlive_readers()
    with answering():
        if composes:
            check_typed(Path(sys.argv[0]).name, sys.argv[1:])
        main()
    sys.exit(0)


def take_signals() -> None:
    """SIGTERM, as batch systems send it, ends a command as Ctrl-C does; neither is lost.

    A second one, while the first is answered, ends it at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    before, answered = sys.unraisablehook, threading.Event()

    def stop(number: int, frame: object) -> None:
        if answered.is_set():
            leave(INTERRUPTED, STOPPED)
        answered.set()
        raise KeyboardInterrupt

    def again(event: "sys.UnraisableHookArgs") -> None:
        if event.exc_type is not KeyboardInterrupt:
            before(event)
            return
        # it came while an object was taken away (`__del__`), where Python drops all exceptions
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # under nohup it is not
        signal.signal(signal.SIGINT, stop)
    sys.unraisablehook = again
    watch_signals(answered)


def watch_signals(answered: threading.Event) -> None:
    """End the process when a signal came and Python does not get to answer it.

    So it is while machine code waits for another process of the run that will never come: Python
    calls a signal's function between two of its own steps only. A thread hears of it at once.

    Args:
        answered: set when the signal's function is called.
    """
    heard, told = socket.socketpair()
    told.setblocking(False)
    signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)

    def no_longer() -> None:
        with suppress(ValueError):
            signal.set_wakeup_fd(-1)

    os.register_at_fork(after_in_child=no_longer)  # what a loader's worker is sent is its own

    def watch(heard: socket.socket, _told: socket.socket) -> None:  # it keeps both open
        while number := heard.recv(1):
            is_end = number[0] in (signal.SIGINT, signal.SIGTERM)
            if is_end and not answered.wait(ANSWER_S):
                leave(INTERRUPTED, STOPPED)

    threading.Thread(target=watch, args=(heard, told), daemon=True, name="signals").start()


def end_with_first() -> None:
    """Let a process that Lightning's first one started die with it, by kill -9 too (Linux)."""
    if is_watched() and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def outlive_readers() -> None:
    """A run goes on when who reads its output is gone (`| head -1`, a closed terminal)."""
    other = logging.StreamHandler.handleError

    def handle(handler: logging.StreamHandler[Any], record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            other(handler, record)
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                if stream is handler.stream:  # what else is written there is lost as well
                    os.dup2(nowhere, stream.fileno())

    logging.StreamHandler.handleError = handle  # type: ignore[assignment, method-assign]


@contextmanager
def answering() -> Iterator[None]:
    """End the process with a message and an exit code where what is within fails; see `run`.

    A single job answers before Hydra does, which has words of its own for every failure.
    """
    trace = "debug=trace" in sys.argv
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException) as error:
        if trace:
            raise
        leave(USER_MISTAKE, f"error: {explain(error)}")
    except TrainingError as error:
        if trace:
            raise
        leave(FAILED, f"error: {error}")
    except (OSError, RuntimeError) as error:
        answer_system(error, trace)
    except KeyboardInterrupt:
        leave(INTERRUPTED, STOPPED)


def answer_system(error: OSError | RuntimeError, trace: bool) -> NoReturn:
    """End the process for what the system refused, or when another one of the run has ended.

    Raises:
        OSError, RuntimeError: the same, of which there is nothing better to say.
    """
    if isinstance(error, RuntimeError):
        if trace or not any(words in str(error) for words in LOST):
            raise error
        leave(FAILED, "error: another process of this run has ended, and says why, here or in its "
              "own log; the same run_dir= goes on")  # fmt: skip
    if isinstance(error, BrokenPipeError):  # who read the output is gone (`| head -1`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    said = of_disk(error)
    if trace or not said:
        raise error
    leave(USER_MISTAKE, f"error: {said}")


def of_disk(error: OSError) -> str:
    """What to say of a full disk or a folder that cannot be written; nothing of other failures.

    Such a folder is one without leave to write, or one that a word of the command line names
    (`run_dir=`, `paths.cache=`): a file stands there, or nothing can be made.
    """
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename2 or error.filename or "a file"
        return (
            f"{where} could not be written: {error.strerror}. Free some space, and start again "
            "with the same run_dir=: what was finished is kept"
        )
    path = str(error.filename2 or error.filename or "")
    named = [word for word in sys.argv[1:] if path and leads_to(word.partition("=")[2], path)]
    if path and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        if Path(path).is_file() and not os.access(path, os.R_OK):
            return f"{path} cannot be read ({error.strerror})"
        return (
            f"{path} cannot be written ({error.strerror}): choose other folders with run_dir=, "
            "paths.data= or paths.cache="
        )
    if named and error.errno in (errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return f"{named[0]}: {path} cannot be made ({error.strerror}): choose another folder"
    return ""


def leads_to(folder: str, path: str) -> bool:
    """Whether a path is a folder's, or the folder itself.

    >>> leads_to("/a", "/a/b"), leads_to("/a", "/ab"), leads_to("", "/a")
    (True, False, False)
    """
    return bool(folder) and Path(path).absolute().is_relative_to(Path(folder).absolute())


def of_one_job() -> AbstractContextManager[None]:
    """`answering` where this is no job of a sweep, whose others go on when one fails."""
    is_alone = HydraConfig.get().mode == RunMode.RUN
    return answering() if is_alone else nullcontext()


def leave(code: int, message: str) -> NoReturn:
    """Print a message on standard error and end the process.

    After Ctrl-C at once: what is kept is on disk, and Python's own end, with torch loaded, takes
    seconds. So too while a thread searches a large picture in machine code: Python cannot end it,
    and aborts when it comes back.
    """
    if code == INTERRUPTED:  # a second Ctrl-C has nothing to add
        with suppress(ValueError):  # not the main thread: see `watch_signals`
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)
        if is_watched():
            hand_to_first()
    with suppress(OSError, ValueError):  # `| head -1` may have closed it
        sys.stdout.flush()
    write_to_log(message)
    print(message, file=sys.stderr, flush=True)
    searching = any(t.daemon and t.name == "proposals" for t in threading.enumerate())
    if searching or code == INTERRUPTED:
        logging.shutdown()
        for worker in multiprocessing.active_children():
            worker.terminate()
        os._exit(code)
    sys.exit(code)


def hand_to_first() -> NoReturn:
    """End a process that the first of a run watches, and the first too, as if it had the signal.

    It would kill the run, itself included and in the middle of its end, were the code not 0; what
    a run ends with, the first says.
    """
    first = os.getppid()
    time.sleep(1)  # a signal to all of them has it end by itself, and this one with it
    if os.getppid() == first:
        os.kill(first, signal.SIGTERM)
    os._exit(0)


def is_watched() -> bool:
    """Whether Lightning's first process of this run started this one, and watches it."""
    return os.environ.get("LOCAL_RANK", "0") != "0" and "TORCHELASTIC_RUN_ID" not in os.environ


def write_to_log(message: str) -> None:
    """Write a message, and the traceback that it stands for, into the files of the log."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            record = logging.LogRecord(
                "detection", logging.ERROR, "", 0, "%s", (message,), sys.exc_info()
            )
            handler.handle(record)


def explain(error: Exception) -> str:
    """One screen on a mistake: Hydra's own words, shortened, with the nearest right name."""
    text = str(error)
    missing = re.search(r"Could not find '([^']+)'", text)
    if missing:
        listing = text.partition("Config search path")[0]
        options = re.findall(r"^\t([^_\s]\S*)", listing, flags=re.MULTILINE)
        group, _, name = missing[1].rpartition("/")
        listed = f"; {group} can be: {', '.join(options)}" if options else ""
        elsewhere = [p.parent.name for p in CONF.glob(f"*/{name}.yaml")]
        if elsewhere and group in ("model", "data", "backbone", "views", "combine", "scales"):
            return f"there is no {group}={name}: it is a choice of {elsewhere[0]}={name}"
        return f"there is no {group}={name}{did_you_mean(name, options)}{listed}"
    refused = re.search(r"Could not override '([^']+)'", text)
    if refused:
        from detection.config.check import known_names

        key = refused[1].split("@")[0]
        if today := renamed(key):
            return f"there is no option '{key}' any more: it is now {today}"
        if key.startswith("recipe."):
            return (
                f"there is no option '{key}' any more: values stand where they are used, as does "
                "model.stages.finetune.optimizer.lr; see --cfg job, schedule=paper, short, quick"
            )
        others = [name for name in known_names(sys.argv[1:]) if name != key]  # of train.py, too
        if hint := meant(key, others):
            return f"there is no option '{key}': {hint}"
        return f"there is no option '{key}'{did_you_mean(key, others)}"
    worker = re.search(r"^detection\.errors\.\w+: (.*)", text, flags=re.MULTILINE | re.DOTALL)
    return worker[1].strip() if worker else text.strip()  # a loader's process adds its traceback
