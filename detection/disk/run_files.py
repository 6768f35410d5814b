"""Where a run keeps its model. Imports no torch: a wrong name is told at once."""

from pathlib import Path

from detection.errors import UserError

NAME, OLDER_NAME = "model.ckpt", "detector.ckpt"


def find_checkpoint(path: Path | str) -> Path:
    """The file of a checkpoint.

    Args:
        path: the file, or the folder of a run or of one of its stages.

    Raises:
        UserError: there is none.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"there is no model at {path}: give a run's folder or its {NAME}")
        return path
    for name in (NAME, OLDER_NAME):
        if (path / name).is_file():
            return path / name
    inside = sorted(str(f.parent) for f in path.glob("*_*/*.ckpt") if f.name in (NAME, OLDER_NAME))
    hint = f": the run has {len(inside)}, such as {inside[0]}" if inside else ""
    raise UserError(f"there is no model at {path / NAME}{hint or ': give a run that is finished'}")
