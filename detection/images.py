"""Images on disk → RGB arrays. Imports no torch: processes that look for proposals start fast."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detection.errors import UserError


def read_image(path: Path, min_side_px: int | None = None) -> NDArray[np.uint8]:
    """The pixels of an image file, (H, W, 3) RGB, whatever its mode (grey, CMYK, palette, 16 bits).

    Pixels stay in their stored order (no EXIF turn), as annotations count them.

    Args:
        path: of the file.
        min_side_px: a JPEG whose shorter side is at least twice, four or eight times as long is
            decoded at a half, a quarter or an eighth of its size: cheaper than decoding it whole.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    with opened(path) as image:
        if min_side_px is not None:
            factor = max(1, min(image.size) // min_side_px)
            image.draft(None, (image.width // factor, image.height // factor))
        if image.mode.startswith("I"):  # Pillow would cut 16 bits off at 255
            grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
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
