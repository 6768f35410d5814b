"""Selective search."""

import numpy as np
import pytest
import torch
from conftest import oracle

from detection.disk.images import read_image
from detection.matching import Matcher
from detection.proposals.published import read_mat_boxes
from detection.proposals.selective_search import SelectiveSearch


def scene(height=120, width=160):
    """A disc and a block on noise."""
    rng = np.random.default_rng(0)
    image = rng.integers(90, 110, (height, width, 3), np.uint8)
    image[20:70, 30:90] = (200, 40, 40)
    y, x = np.mgrid[:height, :width]
    image[(y - 85) ** 2 + (x - 120) ** 2 < 25**2] = (40, 60, 220)
    return image


@pytest.mark.parametrize("settings", ["original", "opencv"])
def test_finds_what_stands_out(settings):
    boxes = SelectiveSearch(settings=settings)(scene())
    for truth in ([30, 20, 90, 70], [95, 60, 145, 110]):
        assert np.abs(boxes - truth).max(axis=1).min() <= 4


def test_sides_duplicates_and_borders():
    boxes = SelectiveSearch(min_side_px=25)(scene())
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 25
    assert len(np.unique(boxes, axis=0)) == len(boxes)
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= [160, 120]).all()
    assert boxes.dtype == np.float32


def test_the_same_again_and_a_prefix_of_all():
    every = SelectiveSearch()(scene())
    assert np.array_equal(every, SelectiveSearch()(scene()))
    assert np.array_equal(SelectiveSearch(max_boxes=7)(scene()), every[:7])


def test_scaling_to_a_width_maps_boxes_back():
    boxes = SelectiveSearch(width_px=320)(scene())
    assert np.abs(boxes - [30, 20, 90, 70]).max(axis=1).min() <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 200), (40, 6000), (2000, 9), (20, 20)])
def test_odd_sizes_give_boxes_inside(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    boxes = SelectiveSearch(min_side_px=5)(image)
    assert len(boxes) >= 1
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= [size[1], size[0]]).all()


def test_one_colour_gives_the_whole_image():
    boxes = SelectiveSearch()(np.full((50, 70, 3), 128, np.uint8))
    assert [0, 0, 70, 50] in boxes.tolist()


@pytest.mark.parametrize("name", ["000004", "001551"])
def test_about_as_many_as_the_authors_and_over_the_same_places(name):
    folder = oracle("selective_search_fastrcnn")
    theirs = read_mat_boxes(folder / f"{name}_boxes.mat", "xyxy_0based")[name]
    ours = SelectiveSearch()(read_image(folder / f"{name}.jpg"))
    assert len(theirs) == {"000004": 2888, "001551": 2057}[name]
    assert 0.5 < len(ours) / len(theirs) < 2
    big = theirs[(theirs[:, 2:] - theirs[:, :2]).min(axis=1) >= 20]
    covered = Matcher()(torch.from_numpy(big), torch.from_numpy(ours)).iou
    assert (covered >= 0.5).float().mean() > 0.9
