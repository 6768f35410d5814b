"""Options of the small commands: a dataclass each, read from words such as `ckpt=RUN`."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf

from detection.config.command import run
from detection.config.help import asks_for_help, options_help
from detection.config.names import did_you_mean
from detection.errors import UserError

Options = TypeVar("Options")


def options_of(
    words: Sequence[str],
    kind: type[Options],
    usage: str,
    choices: Mapping[str, Sequence[str | None]],
) -> Options:
    """The options of a command line.

    Args:
        words: of the command line, each `NAME=VALUE`.
        kind: the dataclass of the options.
        usage: how the command is called, for messages.
        choices: by option, the values that it may have.

    Raises:
        UserError: an option is missing, unknown, or of a wrong value.
    """
    known = OmegaConf.structured(kind)
    names = [str(name) for name in known]
    for word in words:
        name, _, value = word.partition("=")
        if "=" not in word:
            raise UserError(f"{word}: options are NAME=VALUE; {usage}")
        if name not in names or not value:
            raise UserError(
                f"there is no option '{word}'{did_you_mean(name, names)}; options: "
                f"{'=, '.join(names)}="
            )
    given = OmegaConf.merge(known, OmegaConf.from_dotlist(list(words)))
    missing = sorted(OmegaConf.missing_keys(given))
    if missing:
        raise UserError(f"{missing[0]}= must be given; {usage}")
    options: Any = OmegaConf.to_object(given)
    for key, allowed in choices.items():
        if (value := getattr(options, key)) not in allowed:
            raise UserError(f"{key}={value}: choose {' or '.join(c for c in allowed if c)}")
    return options  # type: ignore[no-any-return]


def small_command(usage: str, kind: type, course: Callable[[Sequence[str]], object]) -> None:
    """Run a small command, or print its help, and leave the process with its exit code.

    Args:
        usage: how the command is called.
        kind: the dataclass of its options.
        course: takes the words of the command line.
    """
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    if asks_for_help(sys.argv[1:]):
        print(options_help(usage, kind))
        return
    run(lambda: course(sys.argv[1:]))
