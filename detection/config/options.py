"""Options of the small commands: a dataclass each, read from words such as `ckpt=RUN`."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from omegaconf import OmegaConf

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
