"""Reader of the proposals that the authors of R-CNN and SPP-net published as `.mat` files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from detection.errors import UserError

Order = Literal["yxyx_1based", "xyxy_0based"]


def read_mat_boxes(path: Path, order: Order = "yxyx_1based") -> dict[str, NDArray[np.float32]]:
    """Proposals for each image of a `.mat` file, half-open xyxy pixels.

    Args:
        path: a file with `boxes`, a cell array with one matrix an image, and `images`, their
            names (R-CNN's `selective_search_data`); or one matrix `boxes` for a single image,
            whose name is then the file's, without `_boxes`.
        order: "yxyx_1based": rows y1 x1 y2 x2 from 1, inclusive, as in R-CNN's files;
            "xyxy_0based": x1 y1 x2 y2 from 0, inclusive, as in Fast R-CNN's demo.

    Raises:
        UserError: the file is missing, is no `.mat` file, or lacks these fields.
    """
    try:
        content = loadmat(str(path))
    except FileNotFoundError:
        raise UserError(f"proposals {path} are missing") from None
    except (MatReadError, ValueError, NotImplementedError, OSError) as error:
        raise UserError(f"proposals {path} cannot be read as a .mat file: {error}") from None
    if "boxes" not in content:
        raise UserError(f"proposals {path}: there is no variable 'boxes'")
    boxes = content["boxes"]
    if boxes.dtype != object:
        return {path.stem.removesuffix("_boxes"): half_open(boxes, order, path)}
    if "images" not in content:
        raise UserError(f"proposals {path}: there is no variable 'images' beside the cells")
    names = [str(np.squeeze(cell)) for cell in content["images"].ravel()]
    cells = boxes.ravel()
    if len(names) != len(cells):
        raise UserError(f"proposals {path}: {len(names)} images but {len(cells)} sets of boxes")
    return {name: half_open(cell, order, path) for name, cell in zip(names, cells, strict=True)}


class PublishedBoxes:
    """Proposals of some images from a `.mat` file: `boxes[index]` is (P, 4) float32.

    Args:
        path: see `read_mat_boxes`.
        image_ids: the images, in the data set's order.

    Raises:
        UserError: the file has no boxes for one of them.
    """

    def __init__(self, path: Path, image_ids: Sequence[str]) -> None:
        found = read_mat_boxes(path)
        missing = [i for i in image_ids if i not in found]
        if missing:
            raise UserError(
                f"proposals {path} have no boxes for {len(missing)} of {len(image_ids)} images, "
                f"such as {missing[0]}: they are of another data set or split"
            )
        self.boxes = [found[i] for i in image_ids]
        digest = hashlib.sha256(b"".join(b.tobytes() for b in self.boxes)).hexdigest()
        self.name = f"{path.name} {digest[:16]}"

    @classmethod
    def of(cls, path: Path, images: Sequence[Path]) -> "PublishedBoxes":
        """Those of some image files, by their names without suffix."""
        return cls(path, [image.stem for image in images])

    def __getitem__(self, index: int) -> NDArray[np.float32]:
        return self.boxes[index]


def half_open(rows: NDArray[np.generic], order: Order, path: Path) -> NDArray[np.float32]:
    """Rows of one of the two conventions as half-open xyxy boxes."""
    if rows.size == 0:  # an image without proposals: MATLAB's [] is (0, 0)
        return np.zeros((0, 4), np.float32)
    boxes = rows.astype(np.float32)  # the files hold uint16, in which 0 - 1 is 65535
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UserError(f"proposals {path}: boxes of shape {boxes.shape}, not (P, 4)")
    if order == "yxyx_1based":
        y1, x1, y2, x2 = boxes.T
        return np.stack([x1 - 1, y1 - 1, x2, y2], axis=1)
    x1, y1, x2, y2 = boxes.T
    return np.stack([x1, y1, x2 + 1, y2 + 1], axis=1)
