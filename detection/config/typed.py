"""What newcomers type, and what they mean by it: answered before Hydra's grammar does."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from detection.config.plain import CONF
from detection.errors import UserError

ALONE = ("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun",
         "-m", "--shell-completion", "-sc")  # fmt: skip
WITH_A_WORD = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
               "--config-dir", "-cd", "--experimental-rerun", "--info", "-i")  # fmt: skip
# what other programs call it: the last parts of our options of that kind
ELSEWHERE = {
    "epochs": ("epochs", "steps_per_image"),
    "batch_size": ("batch_size",),
    "lr": ("lr",),
    "image_size": ("scales_px", "input_px", "side_px", "sizes"),
}
SAME = {
    "max_epochs": "epochs", "num_epochs": "epochs", "n_epochs": "epochs", "batch": "batch_size",
    "bs": "batch_size", "learning_rate": "lr", "lr0": "lr", "imgsz": "image_size",
    "img_size": "image_size", "img": "image_size", "imsize": "image_size", "size": "image_size",
}  # fmt: skip
DEVICES = ("gpus", "device", "gpu", "accelerator", "cuda")
GO_ON = ("resume", "resume_from", "resume_from_checkpoint", "checkpoint", "load")


def check_typed(script: str, words: Sequence[str]) -> None:
    """Check that the words of a command line are ones that Hydra takes.

    Args:
        script: of the command, such as "train.py".
        words: after it.

    Raises:
        UserError: one is not; says what was probably meant.
    """
    waiting = False
    for word in words:
        if waiting or word in ALONE or word.partition("=")[0] in WITH_A_WORD:
            waiting = not waiting and word in WITH_A_WORD
        elif word.startswith("-"):
            name = word.lstrip("-").partition("=")[0].replace("-", "_")
            raise UserError(f"{word}: options are NAME=VALUE, {meant(name) or 'see --help'}")
        elif "=" not in word and not word.startswith("~"):
            raise UserError(f"{word}: {without_name(script, word)}")
        else:
            check_grammar(word)


def without_name(script: str, word: str) -> str:
    """What a word without "=" was to say."""
    group, _, choice = word.partition("/")
    if word.endswith(".py"):
        return "the script's name is there already; leave it out"
    if (CONF / group / f"{choice}.yaml").is_file():
        return f"a choice is GROUP=NAME: {group}={choice}"
    groups = [p.parent.name for p in CONF.glob(f"*/{word}.yaml") if p.parent.name != "fit"]
    if groups:
        return f"a choice is GROUP=NAME: {groups[0]}={word}"
    if script.startswith("evaluate"):
        return f"options are NAME=VALUE: ckpt={word}"
    known = f": data=voc data.root={word}" if Path(word).is_dir() else ", such as data=shapes"
    return f"options are NAME=VALUE{known}"


def check_grammar(word: str) -> None:
    """Check that Hydra can read a word, and show how to quote it where it cannot.

    Raises:
        UserError: it cannot.
    """
    try:
        OverridesParser.create().parse_override(word)
    except HydraException:
        name, _, value = word.partition("=")
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        quoted = shlex.quote(f'{name}="{escaped}"')
        raise UserError(
            f"{word}: brackets, quotes, spaces and the like must be quoted twice, for the shell "
            f"and for Hydra: {quoted}"
        ) from None


def meant(key: str, options: Sequence[str] = ()) -> str:
    """What an option of other programs is called here; nothing where we do not know.

    Args:
        key: as it was typed.
        options: all options of the chosen model and data; none: words alone.

    >>> meant("gpus"), meant("trainer.gpus")
    ('trainer=gpu trainer.devices=1', 'trainer=gpu trainer.devices=1')
    """
    last = key.rpartition(".")[2].lower()
    if last in DEVICES:
        return "trainer=gpu trainer.devices=1"
    if last in GO_ON:
        return "run_dir=RUN: a second start with the same folder goes on"
    kind = SAME.get(last, last)
    if kind in ELSEWHERE:
        own = [name for name in options if name.rpartition(".")[2] in ELSEWHERE[kind]]
        listed = ", ".join(f"{name}=" for name in own[:8])
        each = f"each stage has its own: {listed}" if listed else "each stage has its own"
        return f"{each}; schedule=paper, short or quick changes all" if kind == "epochs" else each
    return f"such as {last}=..." if (CONF / last).is_dir() else ""
