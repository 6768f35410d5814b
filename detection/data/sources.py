"""Where a data set's folder comes from when it is the user's own."""

from pathlib import Path

from detection.errors import UserError


def existing_folder(root: str | None) -> Path:
    """A folder of the user's own.

    Raises:
        UserError: none was given, or it is missing.
    """
    if root is None:
        raise UserError(
            "data.root= must name the folder of the data; the choice's file in conf/data says what "
            "it should hold"
        )
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"data.root={root}: there is no such folder")
    return path
