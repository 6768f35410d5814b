"""The squares of a grid: how many, in what order, where in an image."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.errors import UserError
from detection.proposals.squares import SquareGrid


@given(st.integers(1, 12))
def test_a_grid_has_as_many_squares_as_the_formula_says(cells):
    grid = SquareGrid(cells)
    corners = grid.corners()
    places = sum((cells - side + 1) ** 2 for side in range(1, cells + 1))
    assert len(corners) == len(grid) == places
    assert len(corners.unique(dim=0)) == places
    size = corners[:, 2:] - corners[:, :2]
    assert (size[:, 0] == size[:, 1]).all()
    assert corners.min() == 0
    assert corners.max() == cells


def test_seven_cells_have_the_posters_140_squares():
    sides = SquareGrid(7).sides().long()
    assert sides.bincount().tolist() == [0, 49, 36, 25, 16, 9, 4, 1]
    assert (sides.diff() >= 0).all()  # from small to large


@given(st.integers(1, 8))
def test_mirroring_moves_each_square_to_the_other_side(cells):
    grid = SquareGrid(cells)
    corners = grid.corners()
    moved = corners.clone()
    moved[:, 0], moved[:, 2] = cells - corners[:, 2], cells - corners[:, 0]
    assert torch.equal(corners[grid.mirrored()], moved)


@pytest.mark.parametrize(
    ("frame", "size", "first", "last"),
    [  # height and width of an image; the first cell and the whole grid of 2×2
        ("stretch", (10, 40), [0, 0, 20, 5], [0, 0, 40, 10]),
        ("inner", (10, 40), [15, 0, 20, 5], [15, 0, 25, 10]),
        ("outer", (10, 40), [0, -15, 20, 5], [0, -15, 40, 25]),
        ("stretch", (1, 3000), [0, 0, 1500, 0.5], [0, 0, 3000, 1]),
        ("outer", (3000, 1), [-1499.5, 0, 0.5, 1500], [-1499.5, 0, 1500.5, 3000]),
        ("inner", (1, 1), [0, 0, 0.5, 0.5], [0, 0, 1, 1]),  # a grid finer than the image
    ],
)
def test_where_the_grid_lies_in_an_image(frame, size, first, last):
    grid = SquareGrid(2, frame)
    x1, y1, x2, y2 = grid.rectangle(size).tolist()
    assert [x1, y1, (x1 + x2) / 2, (y1 + y2) / 2] == first
    assert [x1, y1, x2, y2] == last


@pytest.mark.parametrize(("cells", "frame"), [(0, "stretch"), (7, "crop")])
def test_a_grid_that_cannot_be_is_refused(cells, frame):
    with pytest.raises(UserError, match=r"cells=0|frame=crop"):
        SquareGrid(cells, frame)
