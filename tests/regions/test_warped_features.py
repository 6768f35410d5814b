"""Regions as squares, against a transcription of the paper's geometry, box by box."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_spp import small
from torch.utils._python_dispatch import TorchDispatchMode

from detection.backbones.efficientnet_lite import efficientnet_lite
from detection.errors import UserError
from detection.regions import warp
from detection.regions.warp import (
    Warp,
    rectangles,
    resize_on_cpu,
    sample_on_device,
    warp_regions,
)
from detection.regions.warped_features import WarpedFeatures

WARPS = [
    Warp(size, padding, mode, shift, outside)
    for size, padding in ((227, 16), (227, 0), (64, 5))
    for mode in ("warp", "square_with_context", "square")
    for shift, outside in ((False, "mean"), (True, "mean"), (False, "edge"))
]


def all_at_once(boxes, sizes, warp):
    """The rectangles of some images' boxes, which are those of each image by itself."""
    each = torch.tensor(sizes).repeat_interleave(torch.tensor([len(b) for b in boxes]), dim=0)
    cut = rectangles(torch.cat(boxes), each, warp)
    alone = [rectangles(b, size, warp) for b, size in zip(boxes, sizes, strict=True)]
    assert torch.equal(cut.source, torch.cat([part.source for part in alone]))
    assert torch.equal(cut.target, torch.cat([part.target for part in alone]))
    return cut


class Launches(TorchDispatchMode):
    """Counts operations, each of which is a launch on a GPU."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_a_batch_of_many_images_takes_few_launches(monkeypatch):
    """128 windows of 110 images, as the GPU takes them: at most 300, most of them copies."""
    monkeypatch.setattr(warp, "resize_on_cpu", None)
    monkeypatch.setattr(warp, "on_cpu", lambda images: False)
    generator = np.random.default_rng(0)
    images = [torch.randint(0, 255, (3, 50 + n % 7, 60), dtype=torch.uint8) for n in range(110)]
    boxes = [some_boxes(generator, (50, 60), 2 if n < 18 else 1) for n in range(110)]
    features = WarpedFeatures(small(), padding_px=4)
    with Launches() as launches:
        warp_regions(images, boxes, features.warp, features.backbone.normalize)
    assert launches.count < 300


def matlab_round(value):
    """To the nearest integer, halves away from 0."""
    return int(np.sign(value) * np.floor(abs(value) + 0.5))


def crop_one(image, box, warp):
    """One region of an (H, W, 3) float image: rcnn_im_crop.m read line by line, 1-based there."""
    x1, y1, x2, y2 = box[0] + 1, box[1] + 1, box[2], box[3]
    size, padding = warp.size_px, warp.padding_px
    height, width = image.shape[:2]
    pad_x = pad_y = 0
    wide = high = size
    if padding > 0 or warp.mode != "warp":
        scale = size / (size - 2 * padding)
        half_w, half_h = (x2 - x1 + 1) / 2, (y2 - y1 + 1) / 2
        cx, cy = x1 + half_w, y1 + half_h
        if warp.mode == "square_with_context":
            half_w = half_h = max(half_w, half_h)
        x1, y1 = (matlab_round(v) for v in (cx - half_w * scale, cy - half_h * scale))
        x2, y2 = (matlab_round(v) for v in (cx + half_w * scale, cy + half_h * scale))
        scale_x, scale_y = size / (x2 - x1 + 1), size / (y2 - y1 + 1)
        pad_x, pad_y = max(0, 1 - x1), max(0, 1 - y1)
        x1, y1, x2, y2 = max(1, x1), max(1, y1), min(width, x2), min(height, y2)
        wide, high = int((x2 - x1 + 1) * scale_x + 0.5), int((y2 - y1 + 1) * scale_y + 0.5)
        pad_x, pad_y = int(pad_x * scale_x + 0.5), int(pad_y * scale_y + 0.5)
        wide, high = min(wide, size - pad_x), min(high, size - pad_y)
    square = np.zeros((size, size, 3), np.float32)
    cut = np.ascontiguousarray(image[y1 - 1 : y2, x1 - 1 : x2])
    square[pad_y : pad_y + high, pad_x : pad_x + wide] = cv2.resize(cut, (wide, high))
    return torch.from_numpy(square).permute(2, 0, 1)


def some_boxes(generator, size, count):
    """Whole-pixel boxes inside an image, some at its borders."""
    low = generator.integers(0, [size[1] - 2, size[0] - 2], (count, 2))
    high = np.minimum(low + generator.integers(1, 200, (count, 2)), [size[1], size[0]])
    boxes = np.concatenate([low, high], axis=1).astype(np.float32)
    boxes[0] = [0, 0, size[1], size[0]]
    return torch.from_numpy(boxes)


@pytest.mark.parametrize("mode", ["warp", "square_with_context"])
@pytest.mark.parametrize(("size_px", "padding"), [(227, 16), (227, 0), (224, 16), (50, 3)])
def test_equal_to_the_original_box_by_box(mode, size_px, padding):
    generator = np.random.default_rng(0)
    image = generator.normal(size=(90, 130, 3)).astype(np.float32)
    boxes = some_boxes(generator, (90, 130), 60)
    warp = Warp(size_px, padding, mode, original_shift=True)
    got = warp_regions([torch.from_numpy(image).permute(2, 0, 1)], [boxes], warp)
    for box, square in zip(boxes.long().tolist(), got, strict=True):
        torch.testing.assert_close(square, crop_one(image, box, warp), rtol=0, atol=1e-5)


@pytest.mark.parametrize("warp", WARPS, ids=str)
def test_the_gpus_way_is_opencvs(warp):
    """Both samplers, on two images of different sizes and numbers of regions."""
    generator = np.random.default_rng(1)
    sizes, counts = [(60, 100), (110, 70)], [7, 4]
    images = [torch.from_numpy(generator.normal(size=(3, *s)).astype("f4")) for s in sizes]
    boxes = [some_boxes(generator, s, n) for s, n in zip(sizes, counts, strict=True)]
    cut = all_at_once(boxes, sizes, warp)
    by_opencv = resize_on_cpu(images, counts, cut, warp.size_px, warp.outside)
    by_sampling = sample_on_device(images, counts, cut, warp.size_px, warp.outside)
    torch.testing.assert_close(by_sampling, by_opencv, rtol=0, atol=1e-3)


def test_context_of_the_paper():
    """The padding is 16 pixels of the square: 227 / 195 of the box, alike on both sides."""
    parts = rectangles(torch.tensor([[200.0, 300, 395, 495]]), (900, 900), Warp(227, 16))
    assert parts.source.tolist() == [[184, 284, 411, 511]]
    assert parts.target.tolist() == [[0, 0, 227, 227]]


def test_original_shift_by_hand():
    """ORIGINAL_FACTS, 1.2: inclusive [100, 199] becomes [92, 208]."""
    box = torch.tensor([[99.0, 99, 199, 199]])
    shifted = rectangles(box, (900, 900), Warp(227, 16, original_shift=True))
    assert shifted.source.tolist() == [[91, 91, 208, 208]]
    assert rectangles(box, (900, 900), Warp(227, 16)).source.tolist() == [[91, 91, 207, 207]]


def test_halves_are_rounded_as_matlab_rounds_them():
    """A box of 10×5 in the corner: its square begins in row -1.5, counted from 1, which is -2."""
    box = torch.tensor([[0.0, 0, 10, 5]])
    cut = rectangles(box, (900, 900), Warp(227, 0, "square_with_context", original_shift=True))
    assert cut.target[0, 1] == round(3 * 227 / 12)  # rows -2 to 9 are 12, and 3 are outside


def test_the_edge_repeats_itself():
    """Appendix A's other way to fill: what the image ends with, as NumPy pads."""
    image = torch.arange(195.0).expand(3, 195, 195).contiguous()
    corner = torch.tensor([[0.0, 0, 195, 195]])
    square = warp_regions([image], [corner], Warp(227, 16, outside="edge"))[0]
    want = np.pad(image.numpy(), ((0, 0), (16, 16), (16, 16)), mode="edge")
    torch.testing.assert_close(square, torch.from_numpy(want))


def test_missing_context_is_the_mean():
    """A box in the corner: 16 columns and rows of zeros, then the image."""
    image = torch.ones(3, 195, 195)
    square = warp_regions([image], [torch.tensor([[0.0, 0, 195, 195]])], Warp(227, 16))[0]
    inside = torch.zeros(227, 227)
    inside[16:211, 16:211] = 1
    assert torch.equal(square, inside.expand(3, -1, -1))


def test_square_without_context_shows_the_region_alone():
    """A box of 100×50 fills 100 columns and 50 rows of a square of 100; the rest is the mean."""
    image = torch.ones(3, 300, 300)
    box = torch.tensor([[100.0, 100, 200, 150]])
    square = warp_regions([image], [box], Warp(100, 0, "square"))[0, 0]
    assert (square.sum(dim=1) > 0).nonzero().flatten().tolist() == list(range(25, 75))
    full = warp_regions([image], [box], Warp(100, 0, "square_with_context"))[0, 0]
    assert full.min() == 1
    with_padding = warp_regions([image], [box], Warp(100, 10, "square"))[0, 0]
    assert with_padding.sum(dim=1).gt(0).sum() == 60  # 80 / 2 rows, and 10 on either side


@pytest.mark.parametrize("padding", [0, 7])
def test_square_without_context_is_the_one_with_it_covered_up(padding):
    """Box by box: what is not of the region, and of its padding, becomes the mean.

    Places are rounded apart, by up to a pixel of the image: values differ by what the image does
    from pixel to pixel, and the edge is left out.
    """
    generator = np.random.default_rng(3)
    image = cv2.GaussianBlur(generator.normal(size=(200, 240, 3)).astype("f4"), (0, 0), 12) * 20
    steepest = np.abs(np.diff(image, axis=0)).max() + np.abs(np.diff(image, axis=1)).max()
    low = generator.integers(20, 100, (40, 2))
    boxes = np.concatenate([low, low + generator.integers(20, 90, (40, 2))], axis=1)
    tensors = [torch.from_numpy(image).permute(2, 0, 1)], [torch.from_numpy(boxes).float()]
    plain = warp_regions(*tensors, Warp(100, padding, "square"))
    with_context = warp_regions(*tensors, Warp(100, padding, "square_with_context"))
    for box, got, want in zip(boxes, plain, with_context, strict=True):
        size = box[2:] - box[:2]
        scale = (100 - 2 * padding) / size.max()  # pixels of the square to one of the image
        half = padding + size * scale / 2
        near = np.abs(np.arange(100) + 0.5 - 50)
        inside = [near < side - 2 * scale for side in half]
        outside = [near > side + 2 * scale for side in half]
        shown = torch.from_numpy(np.logical_and.outer(inside[1], inside[0]))
        hidden = torch.from_numpy(np.logical_or.outer(outside[1], outside[0]))
        assert not got[:, hidden].any()
        assert (got - want)[:, shown].abs().max() < steepest < want[:, shown].std()


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.lists(st.tuples(*[st.floats(-20, 80)] * 4), min_size=1, max_size=5),
    st.sampled_from(WARPS),
)
def test_any_box_gives_rectangles_inside(height, width, corners, warp):
    low = torch.tensor(corners)[:, :2]
    boxes = torch.cat([low, low + torch.tensor(corners)[:, 2:].abs() + 0.01], dim=1).float()
    parts = rectangles(boxes, (height, width), warp)
    limit = torch.tensor([width, height])
    assert (parts.source[:, :2] >= 0).all()
    assert (parts.source[:, 2:] <= limit).all()
    assert (parts.source[:, 2:] > parts.source[:, :2]).all()
    assert (parts.target[:, :2] >= 0).all()
    assert (parts.target[:, 2:] <= warp.size_px).all()
    assert (parts.target[:, 2:] > parts.target[:, :2]).all()


def test_a_backbone_without_fc6_is_pooled_to_a_grid():
    """A grid of bins, each the maximum over its cells; where there is fc6, its grid stands."""
    lite = {"package": "", "width": 1.0, "depth": 1.0, "weights": None, "input_px": 112,
            "mean": [0.5] * 3, "std": [0.5] * 3, "groups": [5], "stride": 16}  # fmt: skip
    features = WarpedFeatures(efficientnet_lite(**lite), padding_px=8, grid=3)
    assert features.out_features == 112 * 9
    maps = torch.rand(2, 112, 7, 7)
    pooled = features.backbone.pool5(maps, features.grid)
    assert pooled[1, 5, 1, 2] == maps[1, 5, 2:5, 4:7].max()
    boxes = torch.tensor([[0.0, 0, 40, 30], [5, 5, 20, 30]])
    image = torch.zeros(3, 50, 60, dtype=torch.uint8)
    assert features.pool([image], boxes, (50, 60)).shape == (2, 112 * 9)
    with pytest.raises(UserError, match="too small for 8×8 bins"):
        WarpedFeatures(efficientnet_lite(**lite), padding_px=8, grid=8)
    with pytest.raises(UserError, match="for backbones without fc6"):
        WarpedFeatures(small(), padding_px=4, grid=3)


def test_no_region():
    assert warp_regions([torch.ones(3, 9, 9)], [torch.zeros(0, 4)], Warp(32, 0)).shape == (
        0,
        3,
        32,
        32,
    )


def test_images_of_very_different_sizes_are_not_padded_to_one():
    """The GPU's way; the numbers are the same."""
    generator = np.random.default_rng(2)
    sizes = [(400, 20), (20, 400), (1, 1)]
    images = [torch.from_numpy(generator.normal(size=(3, *s)).astype("f4")) for s in sizes]
    boxes = [torch.tensor([[0.0, 0, s[1], s[0]], [0, 0, 1, 1]]) for s in sizes]
    cut = all_at_once(boxes, sizes, Warp(40, 4))
    got = sample_on_device(images, [2, 2, 2], cut, 40)
    want = resize_on_cpu(images, [2, 2, 2], cut, 40)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-3)


def test_boxes_without_area_and_many_boxes():
    image = torch.ones(3, 50, 60)
    for mode in ("warp", "square_with_context", "square"):
        flat = torch.tensor([[5.0, 5, 5, 20], [5, 5, 20, 5], [5, 5, 5, 5]])
        assert warp_regions([image], [flat], Warp(30, 0, mode)).isfinite().all()
    boxes = torch.tensor([[0.0, 0, 20, 20]]).expand(3000, 4)
    part = rectangles(boxes, (50, 60), Warp(30, 0))
    assert sample_on_device([image], [3000], part, 30).shape == (3000, 3, 30, 30)  # in two goes
    assert warp_regions([image.to("meta")], [torch.zeros(0, 4)], Warp(30, 0)).is_meta
