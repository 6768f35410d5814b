"""timm's networks as backbones: their maps, and where a cell looks."""

import builtins

import pytest
import torch
from fake_models import DETECTOR

from detection.backbones.backbone import receptive_field
from detection.backbones.efficientnet_lite import efficientnet_lite
from detection.backbones.timm_networks import first_centre, geometry, timm_network
from detection.config.build import build_model
from detection.disk.checkpoints import read_checkpoint, restore_model, save_model
from detection.errors import UserError

timm = pytest.importorskip("timm")


def made(name, stride=32, **options):
    torch.manual_seed(0)
    return timm_network(name=name, stride=stride, weights=None, **options)


@pytest.mark.parametrize(("stride", "channels"), [(16, 256), (32, 512)])
def test_the_map_is_timms_and_cells_look_where_they_are(stride, channels):
    """ResNet's kernels are odd and padded evenly: the first cell's centre is pixel 0."""
    backbone = made("resnet18", stride)
    assert backbone.channels == channels
    assert backbone.field.stride == stride
    assert backbone.field.start == 0
    for side in (224, 225, 97):
        maps = backbone.maps(torch.zeros(1, 3, side, side))
        assert maps.shape[2:] == (backbone.map_side(side),) * 2
    net = timm.create_model("resnet18", features_only=True, out_indices=(stride.bit_length() - 2,))
    net.load_state_dict(
        {k.removeprefix("0.net."): v for k, v in backbone.conv.state_dict().items()}, strict=False
    )
    images = torch.randn(1, 3, 64, 96)
    torch.testing.assert_close(
        backbone.eval().conv(images), net.eval()(images)[-1], atol=1e-5, rtol=1e-4
    )


def test_the_measured_centre_is_the_computed_one():
    """Of a network whose layers we follow, which pads more on the right."""
    options = {"package": "", "width": 1.0, "depth": 1.0, "groups": [5], "weights": None,
               "input_px": 224, "mean": [0.5] * 3, "std": [0.5] * 3}  # fmt: skip
    torch.manual_seed(0)
    lite = efficientnet_lite(stride=16, **options)
    computed = receptive_field(lite.path)
    assert first_centre(lite.conv.eval(), 16) == pytest.approx(computed.start, abs=2)


def test_geometry_does_not_depend_on_the_weights():
    """Or a checkpoint's model would be another one than that which was trained."""
    fields = []
    for seed in range(2):
        torch.manual_seed(seed)
        geometry.cache_clear()
        fields.append(timm_network(name="mobilenetv3_small_050", stride=32, weights=None).field)
        assert torch.initial_seed() == seed  # the caller's random numbers go on
    assert fields[0] == fields[1]
    assert abs(fields[0].start) < 4  # its kernels are odd and padded evenly


@pytest.mark.parametrize(("name", "cells"), [("convnext_atto", 7), ("resnet18", 8)])
def test_a_cell_begun_is_a_cell_or_not(name, cells):
    backbone = made(name).eval()
    assert backbone.map_side(225) == backbone.maps(torch.zeros(1, 3, 225, 225)).shape[2] == cells
    least = backbone.least_side()
    assert backbone.maps(torch.zeros(1, 3, least, least)).shape[2] == 1


def test_a_detector_on_it_is_the_same_from_its_checkpoint(tmp_path):
    tree = DETECTOR | {"features": {**DETECTOR["features"], "backbone": {
        "_target_": "detection.backbones.timm_networks.timm_network", "name": "resnet18",
        "stride": 16, "weights": None}}}  # fmt: skip
    torch.manual_seed(3)
    model = build_model(tree, 3).eval()
    save_model(tmp_path / "model.ckpt", model, tree, {}, ["ant", "bee", "cat"])
    torch.manual_seed(4)
    again = restore_model(read_checkpoint(tmp_path))
    image = torch.randint(0, 255, (3, 90, 120), dtype=torch.uint8)
    proposals = torch.tensor([[0.0, 0, 50, 60], [30, 10, 110, 80], [5, 5, 25, 28]])
    one, other = model.detect(image, proposals), again.detect(image, proposals)
    assert all(torch.equal(one[key], other[key]) for key in ("boxes", "scores", "labels"))
    assert len(one["scores"]) > 0


def test_a_files_weights_are_read(tmp_path):
    net = timm.create_model("resnet18")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    backbone = timm_network(name="resnet18", stride=16, weights=str(tmp_path / "net.pth"))
    assert backbone.pretrained
    torch.testing.assert_close(
        backbone.conv.state_dict()["0.net.layer3.0.conv1.weight"], net.layer3[0].conv1.weight
    )
    torch.save({"other.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="of another network"):
        timm_network(name="resnet18", stride=16, weights=str(tmp_path / "other.pth"))


def test_mistakes_are_told(monkeypatch):
    with pytest.raises(UserError, match="no such network; it has resnet18\\."):
        made("resnet18.no_such_tag")
    with pytest.raises(UserError, match=r"maps of stride 2, 4, 8, 16, 32"):
        made("resnet18", stride=64)
    with pytest.raises(UserError, match="does not take inputs of"):
        made("vit_tiny_patch16_224", stride=16)

    def offline(*args, **kwargs):
        raise ConnectionError("no network")

    real = timm.create_model
    monkeypatch.setattr(
        timm, "create_model",
        lambda *a, pretrained=False, **k: offline() if pretrained else real(*a, **k),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"cannot be had from timm's hub.*efficientnet_lite0"):
        timm_network(name="resnet18", stride=32, weights="imagenet")


def test_without_the_package_it_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "timm":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'detection\[timm\]'"):
        made("resnet18")
