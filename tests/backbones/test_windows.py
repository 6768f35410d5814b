"""Scale choice and window → map coordinates, against the original code run on 200 boxes."""

import json

import numpy as np
import pytest
import torch
from conftest import oracle
from small_spp import small

from detection.backbones.backbone import ReceptiveField
from detection.backbones.windows import choose_scales, scale_boxes, windows_on_map
from detection.sppnet.features import SPPFeatures

ZF5 = ReceptiveField(stride=16, size=139, start=20.0)
HUGE = (10**6, 10**6)  # a map on which nothing is clamped


@pytest.fixture
def original():
    folder = oracle("spp_scale_and_window")
    return json.loads((folder / "params.json").read_text()), np.load(folder / "vectors.npz")


def test_scales_of_the_original(original):
    params, vectors = original
    boxes = half_open(vectors["boxes"])
    got = choose_scales(boxes, params["min_img_sz"], params["scales"], 208, "original")
    assert (got.numpy() + 1 == vectors["best_scale_id_1based"].ravel()).all()


def test_scaled_boxes_of_the_original(original):
    params, vectors = original
    sides = torch.tensor(params["scales"])[vectors["best_scale_id_1based"].ravel().astype(int) - 1]
    got = scale_boxes(half_open(vectors["boxes"]), params["min_img_sz"], sides)
    np.testing.assert_allclose(got.numpy() + 1, vectors["scaled_boxes"], atol=1e-9)


def test_windows_of_the_original(original):
    params, vectors = original
    field = ReceptiveField(params["step_standard"], 139, params["offset0"] - 1)
    pixels = torch.from_numpy(vectors["scaled_boxes"]) - 1
    got = windows_on_map(pixels, field, params["offset"], HUGE).numpy()
    want = vectors["response_windows"].copy()  # 1-based, inclusive, not clamped
    want[:, :2] = np.maximum(want[:, :2], 1) - 1
    assert (got == np.maximum(want, [0, 0, 1, 1])).all()


def half_open(boxes):
    """1-based, inclusive → ours."""
    return torch.from_numpy(boxes).float() - torch.tensor([1.0, 1, 0, 0])


def test_paper_scale_is_nearest_in_area_to_224_squared():
    scales = [480, 576, 688, 864, 1200]
    boxes = torch.tensor([[0.0, 0, 375, 375], [0, 0, 224, 112], [0, 0, 20, 20]])
    areas = [
        [w * h * (s / 375) ** 2 for s in scales] for w, h in ((375, 375), (224, 112), (20, 20))
    ]
    want = [int(np.argmin([abs(a - 224**2) for a in row])) for row in areas]
    assert choose_scales(boxes, 375, scales, 224, "paper").tolist() == want


def test_windows_are_never_empty_and_never_leave_the_map():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(500, 2, generator=generator).double() * 700
    size = torch.rand(500, 2, generator=generator).double() ** 4 * 600
    pixels = torch.cat([corner, corner + size], dim=1)
    windows = windows_on_map(pixels, ZF5, 6.5, (42, 40))
    assert (windows[:, 2:] > windows[:, :2]).all()
    assert (windows >= 0).all()
    assert (windows <= torch.tensor([40, 42, 40, 42])).all()


def test_image_of_one_pixel():
    got = scale_boxes(torch.tensor([[0.0, 0, 1, 1]]), 1, torch.tensor([688]))
    assert got.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("scales", [(120,), (100, 160, 240)])
def test_boxes_on_the_same_cells_share_a_feature(scales):
    """What is pooled once is what each box's own pooling gives."""
    torch.manual_seed(0)
    features = SPPFeatures(small(), levels=(2, 1), scales_px=scales).eval()
    image = torch.randint(0, 255, (3, 90, 130), dtype=torch.uint8)
    low = torch.rand(400, 2) * torch.tensor([90.0, 50.0])
    boxes = torch.cat([low, low + 20 + torch.rand(400, 2) * 18], dim=1)
    prepared = features.prepare(image)
    rows, which = features.distinct(prepared, boxes, (90, 130))
    assert len(rows) < 380
    every = features.pool(prepared, boxes, (90, 130))
    assert torch.equal(features.pool(prepared, boxes[rows], (90, 130))[which], every)
    assert len(every.unique(dim=0)) <= len(rows)
