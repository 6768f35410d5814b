"""Augmentation of the papers that albumentations does not have."""

from typing import Any

import albumentations as A
import cv2
import numpy as np
from numpy.typing import NDArray

from detection.data.crop_places import CENTRE_AND_CORNERS, crop_at
from detection.data.image_index import ImageIndex
from detection.disk.files import read_json, write_json
from detection.disk.images import read_reduced
from detection.errors import UserError
from detection.runtime.progress import progress

SIDE_PX = 64  # images are decoded small: only their colours count


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

    def fit(self, index: ImageIndex) -> None:
        """Compute the components from the images to train on; they are kept beside the index."""
        file = index.kept_in / f"colours-{self.images}.json"
        if not file.is_file():
            write_json(file, principal_components(index, self.images).tolist())
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
        height: of the crop.
        width: likewise.
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
                f"{img.shape[1]}: data.side_px must be at least backbone.input_px"
            )
        return crop_at(img, place, self.height, self.width)


def principal_components(index: ImageIndex, images: int) -> NDArray[np.float64]:
    """The principal components of R, G, B as rows, each as long as its eigenvalue.

    The eigenvalues are those of pixels in [0, 1], and the rows are to be added to pixels of 0 to
    255: eigenvalues of the latter, in their squared units, would drown the image.
    """
    rows = np.random.default_rng(0).permutation(len(index))[:images]
    count, total, products = 0, np.zeros(3), np.zeros((3, 3))
    with progress("principal colours", len(rows)) as advance:
        for row in rows.tolist():
            pixels = read_reduced(index.path(row), SIDE_PX).reshape(-1, 3).astype(np.float64)
            count += len(pixels)
            total += pixels.sum(axis=0)
            products += pixels.T @ pixels
            advance(1)
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return (vectors * values / 255).T
