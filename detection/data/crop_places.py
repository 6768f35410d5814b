"""Places of crops in an image, in training and in tests."""

import numpy as np
from numpy.typing import NDArray

PLACES = {  # of a crop: shares of the room that is left, down and across
    "centre": (0.5, 0.5),
    "top_left": (0.0, 0.0),
    "top_right": (0.0, 1.0),
    "bottom_left": (1.0, 0.0),
    "bottom_right": (1.0, 1.0),
    "top": (0.0, 0.5),
    "bottom": (1.0, 0.5),
    "left": (0.5, 0.0),
    "right": (0.5, 1.0),
}
CENTRE_AND_CORNERS = ("centre", "top_left", "top_right", "bottom_left", "bottom_right")


def crop_at(pixels: NDArray[np.uint8], place: str, height: int, width: int) -> NDArray[np.uint8]:
    """The crop of an (H, W, 3) image, not smaller than it, at one of `PLACES`."""
    down, across = PLACES[place]
    y, x = round((pixels.shape[0] - height) * down), round((pixels.shape[1] - width) * across)
    return pixels[y : y + height, x : x + width]
