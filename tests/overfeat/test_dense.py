"""Dense classification against naive forms, and against the paper's table 5."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from detection.backbones.overfeat import overfeat_accurate, overfeat_fast
from detection.backbones.sliding import fitting_sides
from detection.classification.classifier import Classifier, GridFeatures
from detection.classification.feature_svm import FeatureSVM
from detection.errors import UserError
from detection.overfeat.dense import (
    DenseViews,
    dense_activations,
    dense_logits,
    dense_sizes,
)

OPTIONS = {
    "weights": None,
    "init_std": None,
    "mean": [0.46] * 3,
    "std": [0.24] * 3,
    "width": 0.05,
}
TABLE5 = [  # input, layer 5 before pooling, classifier map per offset, interleaved
    ((245, 245), (17, 17), (1, 1), (3, 3)),
    ((281, 317), (20, 23), (2, 3), (6, 9)),
    ((317, 389), (23, 29), (3, 5), (9, 15)),
    ((389, 461), (29, 35), (5, 7), (15, 21)),
    ((425, 497), (32, 38), (6, 8), (18, 24)),
    ((461, 569), (35, 44), (7, 10), (21, 30)),
]


@pytest.fixture(scope="module")
def accurate():
    torch.manual_seed(0)
    backbone = overfeat_accurate(input_px=221, **OPTIONS)
    return Classifier(GridFeatures(backbone), 7).eval()


@pytest.mark.parametrize(("size", "before", "per_offset", "whole"), TABLE5)
def test_table_5(accurate, size, before, per_offset, whole):
    """The two misprints of its fifth row mended (PAPER_FACTS)."""
    backbone = accurate.features.backbone
    assert tuple(backbone.map_side(side) for side in size) == before
    assert backbone.maps(torch.zeros(1, 3, *size)).shape[2:] == before
    image = torch.rand(1, 3, *size)
    assert dense_logits(accurate, image, fine=False).shape[2:] == per_offset
    assert dense_logits(accurate, image, fine=True).shape[2:] == whole
    first, pooled, *told = [sides for _, _, *sides in dense_sizes(accurate, *size)]
    assert first == list(before)
    assert pooled == [side + 4 for side in per_offset]  # fc6 reads 5×5 cells
    assert told == [list(per_offset), list(whole)]


def test_published_sides_are_those_that_fit(accurate):
    """29 modulo 36 (ORIGINAL_FACTS, 3.3)."""
    assert fitting_sides(accurate.features.backbone) == (245, 36)
    fast = overfeat_fast(input_px=231, **OPTIONS)
    first, step = fitting_sides(fast)
    assert (first, step) == (247, 32)
    for side in (first, first + step):
        assert (fast.map_side(side) - 1) % 2 == 0
        assert fast.map_side(side - 1) < fast.map_side(side)


@pytest.mark.parametrize("fine", [False, True])
def test_equals_the_network_on_each_window_of_the_map(accurate, fine):
    """Place (y, x) of the result reads 15×15 cells from (y, x), or from three times that."""
    image = torch.rand(2, 3, 281, 317)
    dense = dense_logits(accurate, image, fine)
    maps = accurate.features.backbone.maps(accurate.features.backbone.normalize(image))
    step = 1 if fine else 3
    for y in range(dense.shape[2]):
        for x in range(dense.shape[3]):
            window = maps[:, :, y * step : y * step + 15, x * step : x * step + 15]
            torch.testing.assert_close(
                dense[:, :, y, x], accurate.logits(F.max_pool2d(window, 3, 3).flatten(1))
            )


def test_equals_the_network_on_each_crop():
    """Window (y, x) is a crop of the image 12 pixels further for each place.

    Exactly so without padding, which in a crop is zero and in the image what lies beside the crop.
    """
    torch.manual_seed(0)
    backbone = overfeat_accurate(input_px=317, **OPTIONS)
    for layer in backbone.conv:
        if isinstance(layer, nn.Conv2d):
            layer.padding = (0, 0)
    net = Classifier(GridFeatures(backbone), 5, side_px=317).eval()
    assert backbone.maps(torch.zeros(1, 3, 317, 317)).shape[2:] == (15, 15)
    image = torch.rand(1, 3, 317 + 60, 317 + 24)
    dense = dense_logits(net, image, fine=True)
    assert dense.shape[2:] == (6, 3)
    for y in range(6):
        for x in range(3):
            crop = image[:, :, 12 * y : 12 * y + 317, 12 * x : 12 * x + 317]
            torch.testing.assert_close(dense[:, :, y, x], net(crop), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layer", ["pool5", "fc6", "fc7", "logits"])
def test_activations_read_densely(accurate, layer):
    """A single window gives the vector; a larger image a map, whose places are windows'."""
    one = torch.rand(1, 3, 245, 245)
    maps = dense_activations(accurate, one, layer)
    if layer != "pool5":
        assert maps.shape[2:] == (1, 1)
    else:
        assert maps.shape[2:] == (5, 5)
    backbone = accurate.features.backbone
    window = backbone.maps(backbone.normalize(one))[:, :, :15, :15]
    hidden = F.max_pool2d(window, 3, 3).flatten(1)
    for name in ("fc6", "fc7")[: ("pool5", "fc6", "fc7").index(layer) if layer != "logits" else 2]:
        hidden = F.relu(getattr(accurate.head, name)(hidden))
    hidden = accurate.output(hidden) if layer == "logits" else hidden
    torch.testing.assert_close(maps.flatten(1), hidden)
    wide = dense_activations(accurate, torch.rand(1, 3, 281, 317), layer)
    assert wide.shape[2:] == ((6, 7) if layer == "pool5" else (2, 3))
    if layer in ("fc6", "fc7"):
        before = dense_activations(accurate, one, layer, relu=False)
        assert before.min() < 0
        assert torch.equal(before.relu(), maps)


def test_what_cannot_slide_is_refused(accurate):
    backbone = overfeat_accurate(input_px=221, **OPTIONS)
    svms = FeatureSVM(GridFeatures(backbone), 7, layer="fc7")
    with pytest.raises(UserError, match="SVMs on activations cannot be read densely"):
        dense_logits(svms, torch.rand(1, 3, 245, 245), fine=True)
    with pytest.raises(UserError, match="100×100 pixels are too small"):
        dense_activations(accurate, torch.rand(1, 3, 100, 100), "fc7")


def test_sides_that_do_not_fit_lose_the_last_places(accurate):
    """All offsets have as many places as the last one; none is made up."""
    whole = dense_logits(accurate, image := torch.rand(1, 3, 295, 295), fine=True)
    maps = accurate.features.backbone.maps(accurate.features.backbone.normalize(image))
    assert maps.shape[2] == 21  # of which the three offsets fill 20
    assert whole.shape[2:] == (6, 6)


def test_too_small_says_so(accurate):
    with pytest.raises(UserError, match=r"221×221 pixels give a pooled map of 4×4.*needs 5×5"):
        dense_logits(accurate, torch.rand(1, 3, 221, 221), fine=True)
    assert dense_logits(accurate, torch.rand(1, 3, 221, 221), fine=False).shape[2:] == (1, 1)


def dense_views(net, sizes, **changes):
    views = DenseViews(sizes=sizes, **{"flip": False, **changes})
    views.bind(256, net.features.backbone)
    return views


def test_views_are_scaled_turned_and_mirrored(accurate):
    views = dense_views(accurate, [[281, 317], [245, 245]], flip=True)
    portrait = np.random.default_rng(0).integers(0, 255, (300, 200, 3), np.uint8)
    made = views(portrait)
    assert [v.shape[:2] for v in made] == [(317, 281), (245, 245)] * 2
    assert (made[2] == made[0][:, ::-1]).all()
    fitted = dense_views(accurate, [300])(portrait)
    assert fitted[0].shape[:2] == (461, 317)  # 300 → 317, 450 → 461


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([[100, 300]], "scale 100 is too small for this network.* 245 pixels"),
        ([240, 245, 281], r"come to \[\(245,\), \(281,\)\].*leave out those"),
        ([245.5], "sizes needs pairs"),
        ([[1, 2, 3]], "sizes needs pairs"),
        (["ab"], "sizes needs pairs"),
        ([[245, "x"]], "sizes needs pairs"),
    ],
)
def test_scales_that_cannot_be(accurate, sizes, message):
    with pytest.raises(UserError, match=message):
        dense_views(accurate, sizes)


def test_score_is_the_largest_of_any_place(accurate):
    image = torch.randint(0, 256, (1, 3, 281, 281), dtype=torch.uint8)
    every = dense_logits(accurate, image, fine=True)
    raw = dense_views(accurate, [281], softmax=False).read(accurate, image)
    torch.testing.assert_close(raw, every.flatten(2).max(dim=2).values)
    soft = dense_views(accurate, [281]).read(accurate, image)
    torch.testing.assert_close(soft, every.softmax(dim=1).flatten(2).max(dim=2).values)
