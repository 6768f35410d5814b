"""A trained model on images of one's own.

`python -m detection.predict ckpt=RUN images=FOLDER out=FOLDER` draws what it finds and writes
tables and a page; `--help` lists the options. In Python:

    from detection.predict import Predictor
    predictor = Predictor("runs/<run>")
    print(predictor("photo.jpg"))  # names, scores, boxes
"""

from typing import TYPE_CHECKING, Any

from detection.runs.predict import main

if TYPE_CHECKING:
    from detection.runs.predictor import Found, Predictor

__all__ = ["Found", "Predictor", "main"]


def __getattr__(name: str) -> Any:
    """The classes, which need torch, when they are asked for."""
    if name not in ("Found", "Predictor"):
        raise AttributeError(name)
    from detection.runs import predictor

    return getattr(predictor, name)


if __name__ == "__main__":
    main()
