"""Crops at named places, and augmentation of the papers that albumentations does not have."""

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from detection.data.classification import ClassificationSplit
from detection.disk.arrays import fingerprint
from detection.disk.files import read_json, write_json
from detection.disk.images import read_reduced
from detection.errors import UserError
from detection.runtime.progress import progress

PLACES = {  # of a crop: shares of what is left over, down and across
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

SIDE_PX = 64  # images are decoded small: only their colours count


def crop_at(pixels: NDArray[np.uint8], place: str, height: int, width: int) -> NDArray[np.uint8]:
    """The crop of an (H, W, 3) image, not smaller than it, at one of `PLACES`."""
    down, across = PLACES[place]
    y, x = round((pixels.shape[0] - height) * down), round((pixels.shape[1] - width) * across)
    return pixels[y : y + height, x : x + width]


class PCALighting(A.ImageOnlyTransform):  # type: ignore[misc]
    """Adds one colour to all pixels: the components times their eigenvalues times normal numbers.

    Args:
        std: of those numbers; 0.1 in Krizhevsky et al. 2012, 4.1.
        images: to compute the components from.
        p: probability that an image is altered.
    """

    def __init__(self, std: float, images: int, p: float = 1.0) -> None:
        super().__init__(p=p)
        self.std = std
        self.images = images
        self.components: NDArray[np.float64] = np.zeros((3, 3))  # rows times eigenvalue

    def learn_from(self, split: ClassificationSplit) -> None:
        """Compute the components from the images to train on; they are kept beside the index.

        Which images are trained on stands in the file's name.
        """
        rows = "all" if split.rows is None else fingerprint(split.rows.tolist())
        file = split.cache / f"colours-{self.images}-{rows}.json"
        if not file.is_file():
            write_json(file, principal_components(split, self.images).tolist())
        self.components = np.array(read_json(file))

    def get_params(self) -> dict[str, Any]:
        """The colour that is added, of 255."""
        weights = self.random_generator.normal(0, self.std, 3)
        return {"colour": weights @ self.components}

    def apply(self, img: NDArray[np.uint8], colour: NDArray[np.float64], **_: Any) -> Any:
        """An (H, W, 3) image with the colour added."""
        added: Any = (*colour.tolist(), 0.0)
        return cv2.add(img, added)


class CentreOrCornerCrop(A.ImageOnlyTransform):  # type: ignore[misc]
    """One of five crops: the four corners' and the centre's (SPP-net, 3.1).

    Args:
        height: of the crop, in pixels.
        width: of the crop, in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__(p=1.0)
        self.height, self.width = height, width

    def get_params(self) -> dict[str, Any]:
        """One of `PLACES`."""
        number = int(self.random_generator.integers(len(CENTRE_AND_CORNERS)))
        return {"place": CENTRE_AND_CORNERS[number]}

    def apply(self, img: NDArray[np.uint8], place: str, **_: Any) -> Any:
        """The crop.

        Raises:
            UserError: the image is smaller.
        """
        if img.shape[0] < self.height or img.shape[1] < self.width:
            raise UserError(
                f"a crop of {self.height}×{self.width} does not fit an image of {img.shape[0]}×"
                f"{img.shape[1]}: model.side_px must be at least backbone.input_px"
            )
        return crop_at(img, place, self.height, self.width)


def principal_components(split: ClassificationSplit, images: int) -> NDArray[np.float64]:
    """The principal components of R, G, B as rows, each as long as its eigenvalue.

    The eigenvalues are those of pixels in [0, 1], and the rows are to be added to pixels of 0 to
    255: eigenvalues of the latter, in their squared units, would drown the image.
    """
    rows = np.random.default_rng(0).permutation(len(split))[:images]
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    with progress("principal colours", len(rows)) as advance:
        for row in rows.tolist():
            pixels = read_reduced(split.path(row), SIDE_PX).reshape(-1, 3).astype(np.float64)
            count += len(pixels)
            total += pixels.sum(axis=0)
            products += pixels.T @ pixels
            advance(1)
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return (vectors * values / 255).T
