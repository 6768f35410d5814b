"""Features in pre-training are those of detection."""

import torch

from detection.backbones.zf5 import zf5
from detection.sppnet.features import SPPFeatures


def make(scale_px):
    torch.manual_seed(0)
    backbone = zf5(
        weights=None,
        width=0.1,
        padding="paper",
        normalization="channel",
        input_px=112,
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )
    return SPPFeatures(
        backbone,
        levels=[6, 3, 2, 1],
        scales_px=[scale_px],
        max_side_px=1000,
        scale_rule="paper",
        target_px=224,
        shrink_px=6.5,
    )


def test_windows_of_crops_are_pooled_as_windows_of_images():
    features = make(scale_px=200)
    image = torch.randint(0, 256, (3, 200, 200), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(40, 2, generator=generator) * 150
    boxes = torch.cat([corner, corner + 10 + torch.rand(40, 2, generator=generator) * 40], dim=1)
    detected = features.pool(features.prepare(image), boxes, (200, 200))
    windows = torch.cat([torch.zeros(40, 1), boxes], dim=1)
    trained = features(features.backbone.normalize(image)[None], windows)
    same = torch.isclose(detected, trained, atol=1e-5).float().mean()
    assert same > 0.99  # roi_pool's float32 bin edges go astray on a few


def test_gradient_reaches_every_convolution():
    features = make(scale_px=200)
    images = torch.randn(2, 3, 160, 160)
    windows = torch.tensor([[0.0, 10, 10, 100, 120], [1, 30, 40, 150, 150]])
    features(images, windows).sum().backward()
    for name, parameter in features.backbone.conv.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_long_images_are_scaled_down():
    features = make(scale_px=600)
    assert features.actual_scales((600, 700)) == [600]
    assert features.actual_scales((40, 6000)) == [6]
    (grid,) = features.prepare(torch.zeros(3, 40, 6000))
    assert grid.shape[1] <= 70


def test_windows_of_a_long_image_lie_where_its_map_is_stretched():
    """Its lower half is the lower half of the map, though a shorter side of 6 pixels was wanted."""
    features = make(scale_px=600)
    features.shrink_px = 0.0
    prepared = features.prepare(torch.rand(3, 40, 6000))
    rows = prepared[0].shape[0]
    halves = torch.tensor([[0.0, 0, 3000, 20], [0, 20, 3000, 40], [0, 0, 6000, 40]])
    _, cells = features.windows(prepared, halves, (40, 6000))
    assert cells[2, 1] == 0
    assert cells[2, 3] == rows
    assert abs(int(cells[0, 3]) - rows / 2) <= 1
    assert abs(int(cells[1, 1]) - rows / 2) <= 1


def test_scales_that_come_to_the_same_are_computed_once():
    features = make(scale_px=600)
    features.scales_px = (480, 576, 688)
    assert features.actual_scales((40, 6000)) == [6]
    assert len(features.prepare(torch.zeros(3, 40, 6000))) == 1
    assert features.actual_scales((600, 700)) == [480, 576, 688]


def test_images_made_smaller_are_smoothed_if_asked(monkeypatch):
    """Of stripes one pixel wide nothing is left at a fifth of the size; the original sees some."""
    stripes = (torch.arange(400) % 2).float().expand(3, 400, 400)
    seen = {}
    for antialias in (False, True):
        features = make(scale_px=80)
        features.antialias = antialias

        def keep(scaled, antialias=antialias, maps=features.backbone.maps):
            seen[antialias] = scaled
            return maps(scaled)

        monkeypatch.setattr(features.backbone, "maps", keep)
        features.prepare(stripes)
    assert seen[True].shape == seen[False].shape == (1, 3, 80, 80)
    assert seen[True].std() < 0.2 * seen[False].std()
    assert seen[False].std() > 1
