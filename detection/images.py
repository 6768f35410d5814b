"""Images on disk → RGB arrays. Imports no torch: processes that look for proposals start fast."""

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
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"image {path} is missing: restore it, or take it off its list") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(
            f"image {path} cannot be decoded ({error}): replace the file, or take it off its list"
        ) from None
