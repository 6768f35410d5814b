"""How squares are scored: against cutting and pooling them one by one."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rectangles import lite0

from detection.backbones.backbone import ReceptiveField
from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier, published_features
from detection.data.samples import Sample
from detection.errors import UserError
from detection.object_scoring.views import SquareCrops, SquareMap, cells_inside, framed
from detection.proposals.squares import SquareGrid
from detection.sppnet.image_features import PyramidFeatures

IMAGE = torch.randint(0, 255, (3, 90, 130), dtype=torch.uint8)


def small_zf5():
    mean = [0.5] * 3
    return zf5(weights=None, input_px=64, width=0.1, padding="paper", normalization="channel",
               mean=mean, std=mean)  # fmt: skip


def classifier(features):
    torch.manual_seed(0)
    made = Classifier(features, 3, side_px=72).eval()
    torch.nn.init.normal_(made.output.weight)
    return made


@torch.no_grad()
def test_crops_are_the_squares_scaled_to_the_network():
    model, grid = classifier(published_features(lite0())), SquareGrid(3)
    views = SquareCrops([100], crops_per_batch=5)
    views.bind(grid, model)
    (picture,) = views(Sample(IMAGE, {}, "noise", 0)).views[0]
    assert picture.shape == (3, 99, 99)  # a multiple of the grid's cells
    logits = views.logits(model, [picture])
    for corner, found in zip(grid.corners().long().tolist(), logits, strict=True):
        x1, y1, x2, y2 = (33 * v for v in corner)
        crop = F.interpolate(
            picture[None, :, y1:y2, x1:x2].float() / 255, (64, 64), mode="bilinear", antialias=True
        )
        torch.testing.assert_close(found, model(crop)[0], rtol=1e-3, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(
    "features",
    [
        lambda: published_features(lite0()),  # the mean
        lambda: published_features(small_zf5()),  # fc6's grid
        lambda: PyramidFeatures(small_zf5(), levels=(3, 2, 1)),
    ],
)
def test_one_map_is_pooled_as_each_square_would_be(features):
    model, grid = classifier(features()), SquareGrid(4)
    views = SquareMap([128, 256])
    views.bind(grid, model)
    pictures = views(Sample(IMAGE, {}, "noise", 0)).views[0]
    assert [p.shape[1] for p in pictures] == [128, 256]
    logits = views.logits(model, pictures)
    backbone = model.features.backbone
    for corner, found in zip(grid.corners(), logits, strict=True):
        side = float(corner[2] - corner[0])
        # the scale at which the square's area is nearest to the network's 64 × 64
        picture = min(pictures, key=lambda p: abs((p.shape[1] * side / 4) ** 2 - 64**2))
        maps = backbone.maps(backbone.normalize(picture)[None])
        # cells whose centres, as the network's layers say, lie in the square
        field = backbone.field
        centres = 0.5 + field.start + field.stride * torch.arange(maps.shape[2])
        low, high = corner[:2] * picture.shape[1] / 4, corner[2:] * picture.shape[1] / 4
        across, down = ((centres >= low[d]) & (centres < high[d]) for d in (0, 1))
        window = maps[:, :, down][:, :, :, across]
        if not isinstance(model.features, PyramidFeatures) or min(window.shape[2:]) >= 3:
            expected = model.logits(model.features(window))[0]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("start", [15.5, 16.0, 8.0])
def test_mirrored_squares_read_mirrored_cells(start):
    """Two cells a square of the grid, wherever exactly their centres lie."""
    grid, field = SquareGrid(7), ReceptiveField(32, 65, start)
    cells = cells_inside(grid.corners() * 64, field, 14)
    assert cells[:7].tolist() == [[2 * k, 0, 2 * k + 2, 2] for k in range(7)]
    turned = cells[grid.mirrored()]
    assert torch.equal(cells[:, [1, 3]], turned[:, [1, 3]])
    assert torch.equal(14 - cells[:, [2, 0]], turned[:, [0, 2]])


def test_a_square_between_two_cells_reads_the_nearest():
    corners = torch.tensor([[0.0, 0, 10, 10], [30, 60, 40, 70]])
    found = cells_inside(corners, ReceptiveField(32, 65, 15.5), 3)
    assert found.tolist() == [[0, 0, 1, 1], [1, 2, 2, 3]]


def test_squares_that_look_alike_on_the_map_are_refused():
    with pytest.raises(UserError, match="look alike: 112 pixels are needed"):
        SquareMap([96]).bind(SquareGrid(7), classifier(published_features(lite0())))


@pytest.mark.parametrize("sizes", [[], [0], ["big"]])
def test_sizes_are_sides_in_pixels(sizes):
    for kind in (SquareCrops, SquareMap):
        with pytest.raises(UserError, match="give sides in pixels"):
            kind(sizes)
    with pytest.raises(UserError, match="crops are cut from one picture"):
        SquareCrops([100, 200]).bind(SquareGrid(3), classifier(published_features(lite0())))


@pytest.mark.parametrize("shape", [(3, 400), (400, 3), (60, 100), (1, 1)])
def test_every_aspect_becomes_a_square(shape):
    """The frames hold what they say they do: the image's columns are dark, then bright."""
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[:, shape[1] // 2 :] = 200
    for frame in ("stretch", "inner", "outer"):
        found = framed(pixels, frame, 64)
        assert found.shape == (64, 64, 3)
        if shape[1] > 3:  # outer of a tall strip has one dark column of pixels at most
            assert found[:, 0].max() == 0
            assert found[:, -1].min() == 200
    outer = framed(pixels, "outer", 64)
    if shape == (3, 400):  # a strip: its border is repeated above and below
        assert (outer == outer[32]).all()
