"""The authors' `.mat` files."""

import numpy as np
import pytest
from scipy.io import savemat

from detection.errors import UserError
from detection.proposals.published import read_mat_boxes


def cells(values):
    array = np.empty((1, len(values)), object)
    array[0, :] = values
    return array


def test_cells_of_rcnn_are_yxyx_from_one(tmp_path):
    rows = np.array([[1, 2, 30, 40]], np.uint16)
    savemat(tmp_path / "train.mat", {"boxes": cells([rows, rows]), "images": cells(["a", "b"])})
    got = read_mat_boxes(tmp_path / "train.mat")
    assert set(got) == {"a", "b"}
    assert got["a"].tolist() == [[1, 0, 40, 30]]  # 0 of uint16 minus 1 would be 65535


def test_an_image_without_proposals(tmp_path):
    empty = np.zeros((0, 0))
    savemat(tmp_path / "train.mat", {"boxes": cells([empty]), "images": cells(["a"])})
    assert read_mat_boxes(tmp_path / "train.mat")["a"].shape == (0, 4)


def test_mistakes(tmp_path):
    with pytest.raises(UserError, match="are missing"):
        read_mat_boxes(tmp_path / "gone.mat")
    (tmp_path / "bad.mat").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot be read as a \.mat file"):
        read_mat_boxes(tmp_path / "bad.mat")
    savemat(tmp_path / "other.mat", {"regions": np.zeros(3)})
    with pytest.raises(UserError, match="no variable 'boxes'"):
        read_mat_boxes(tmp_path / "other.mat")
    savemat(tmp_path / "few.mat", {"boxes": cells([np.zeros((1, 4))] * 2), "images": cells(["a"])})
    with pytest.raises(UserError, match="1 images but 2 sets"):
        read_mat_boxes(tmp_path / "few.mat")
    savemat(tmp_path / "shape_boxes.mat", {"boxes": np.zeros((2, 3))})
    with pytest.raises(UserError, match=r"shape \(2, 3\)"):
        read_mat_boxes(tmp_path / "shape_boxes.mat")
