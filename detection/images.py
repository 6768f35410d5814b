"""Images on disk → RGB arrays. Imports no torch: processes that look for proposals start fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detection.errors import UserError


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, (H, W, 3) RGB, whatever its mode (grey, CMYK, palette).

    Pixels stay in their stored order (no EXIF turn), as annotations count them.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    with opened(path) as image:
        return np.array(image.convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header; see `read_image`."""
    with opened(path) as image:
        return image.size


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file, and one clear error for whatever is wrong with it."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise UserError(f"image {path} is missing: restore it, or take it off its list") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"image {path} cannot be decoded ({error}): replace the file, or take it off its list"
        ) from None
