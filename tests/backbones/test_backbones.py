"""Backbones: geometry, weights, and what they refuse."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import alexnet as torchvision_alexnet
from torchvision.models import vgg16 as torchvision_vgg16

from detection.backbones.alexnet import alexnet
from detection.backbones.backbone import receptive_field
from detection.backbones.caffenet import caffenet
from detection.backbones.lrn import ChannelLRN, SpatialLRN
from detection.backbones.vgg16 import vgg16
from detection.backbones.zf5 import zf5
from detection.errors import UserError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
plain = {"weights": None, "input_px": 224, "mean": MEAN, "std": STD}
small_zf5 = partial(zf5, width=0.25, padding="paper", normalization="channel", **plain)


@pytest.mark.parametrize("padding", ["paper", "original"])
def test_zf5_maps_of_the_paper(padding):
    """SPP-net, sections 2.3 and 3.1: 13×13 at 224, 10×10 at 180; table 1: 55, 27 (26), 13."""
    net = zf5(width=0.25, padding=padding, normalization="spatial", **plain)
    assert net.conv(torch.zeros(1, 3, 224, 224)).shape[2:] == (13, 13)
    assert net.conv(torch.zeros(1, 3, 180, 180)).shape[2:] == (10, 10)
    assert net.conv[:4](torch.zeros(1, 3, 224, 224)).shape[2:] == (55, 55)
    second = net.conv[:6](torch.zeros(1, 3, 224, 224)).shape[2:]
    assert second == ((27, 27) if padding == "paper" else (26, 26))


def test_zf5_original_geometry():
    """ORIGINAL_FACTS, 2.3: centre at pixel 20 (from 0), stride 16, field 139; conv5 sides."""
    net = zf5(width=0.25, padding="original", normalization="spatial", **plain)
    assert (net.field.start, net.field.stride, net.field.size) == (20, 16, 139)
    sides = {480: 29, 576: 35, 688: 42, 874: 53, 1200: 74}
    for side, cells in sides.items():
        assert net.conv(torch.zeros(1, 3, side, 139)).shape[2] == cells


@pytest.mark.parametrize(
    "make",
    [
        small_zf5,
        partial(alexnet, width=0.25, **plain),
        partial(caffenet, width=0.25, **plain),
        partial(vgg16, width=0.125, **plain),
    ],
)
def test_receptive_field_is_where_the_gradient_is(make):
    net = make()
    layers = [m for m in net.conv if not isinstance(m, ChannelLRN | nn.ReLU)]
    linear = nn.Sequential(*[as_average(m) for m in layers])
    image = torch.zeros(1, 3, 260, 260, requires_grad=True)
    cells = linear(image)
    cells[0, 0, 4, 4].backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    field = receptive_field(net.conv)
    centre = field.start + 4 * field.stride
    assert rows[0] == max(0, centre - (field.size - 1) / 2)
    assert rows[-1] == min(259, centre + (field.size - 1) / 2)


def test_caffenet_maps_of_the_prototxt():
    """caffe: bvlc_reference_caffenet: 55, 27, 27, 13 at 227; pool5 of 9,216."""
    net = caffenet(width=1.0, **{**plain, "input_px": 227})
    image = torch.zeros(1, 3, 227, 227)
    assert [net.conv[:n](image).shape[2] for n in (1, 3, 5, 7, 14)] == [55, 27, 27, 13, 13]
    assert net.conv[4].weight.shape == (256, 48, 5, 5)  # two groups
    assert net.pool5(net.maps(image)).flatten(1).shape == (1, 9216)
    layers = (net, net.grid_fc.fc6, net.grid_fc.fc7)
    parameters = sum(p.numel() for layer in layers for p in layer.parameters())
    assert parameters == 60_965_224 - 4_097_000  # Caffe's count, without fc8


@pytest.mark.parametrize(
    ("side", "grid", "published"), [(13, 6, nn.MaxPool2d(3, 2)), (14, 7, nn.MaxPool2d(2, 2))]
)
def test_pool5_is_the_published_pooling(side, grid, published):
    """13 → 6 in AlexNet, CaffeNet and ZF-5; 14 → 7 in VGG-16."""
    net = alexnet(width=0.125, **plain)
    net.fc6_grid = grid
    maps = torch.randn(2, 8, side, side)
    assert torch.equal(net.pool5(maps), published(maps))


def as_average(layer):
    """The same geometry with positive weights, so that no gradient vanishes."""
    if isinstance(layer, nn.MaxPool2d):
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
    nn.init.constant_(layer.weight, 0.01)
    return layer


def test_channel_lrn_is_pytorchs():
    x = torch.randn(2, 7, 5, 6) * 10
    want = nn.LocalResponseNorm(5, alpha=0.1, beta=0.75, k=2.0)(x)
    torch.testing.assert_close(ChannelLRN(5, 0.1, 2.0)(x), want)


def test_spatial_lrn_by_hand():
    x = torch.ones(1, 1, 3, 3)
    got = SpatialLRN(3, alpha=9.0)(x)[0, 0]
    assert got[1, 1].item() == pytest.approx((1 + 9) ** -0.75)
    assert got[0, 0].item() == pytest.approx((1 + 4) ** -0.75)  # Caffe divides by 9 at corners too


@pytest.mark.parametrize("layer", [ChannelLRN(3, alpha=0.5), SpatialLRN(3, alpha=0.5)])
def test_gradient_of_normalisation(layer):
    x = torch.randn(1, 4, 4, 3, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


@pytest.mark.parametrize(
    ("make", "theirs", "fc6", "fc7"),
    [
        (alexnet, torchvision_alexnet, "classifier.1", "classifier.4"),
        (vgg16, torchvision_vgg16, "classifier.0", "classifier.3"),
    ],
)
def test_torchvision_weights(make, theirs, fc6, fc7, tmp_path):
    """A file of torchvision's state dict gives torchvision's outputs."""
    torch.manual_seed(0)
    net = theirs(weights=None)
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    ours = make(weights=str(tmp_path / "weights.pth"), width=1.0, input_px=224, mean=MEAN, std=STD)
    image = torch.randn(1, 3, 90, 120)
    assert ours.pretrained
    torch.testing.assert_close(ours.conv(image), net.features[:-1](image))
    assert torch.equal(ours.grid_fc.fc6.weight, net.get_submodule(fc6).weight)
    assert torch.equal(ours.grid_fc.fc7.weight, net.get_submodule(fc7).weight)


def test_convolutions_of_a_detector_whose_fc6_reads_other_features(tmp_path):
    """The `detector.ckpt` of an SPP-net starts an R-CNN: its fc6 reads a pyramid."""
    net = small_zf5()
    state = {f"features.backbone.{k}": v for k, v in net.state_dict().items() if "conv" in k}
    state |= {"fc6.weight": torch.zeros(1024, 3200), "fc6.bias": torch.zeros(1024)}
    torch.save({"state_dict": state}, tmp_path / "detector.ckpt")
    ours = small_zf5(weights=str(tmp_path / "detector.ckpt"))
    assert torch.equal(ours.conv[0].weight, net.conv[0].weight)
    assert (ours.pretrained, ours.grid_fc.pretrained) == (True, False)


def test_mistakes_in_weights(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        alexnet(weights="missing.pth", width=1.0, input_px=224, mean=MEAN, std=STD)
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a file of weights"):
        alexnet(weights=str(tmp_path / "bad.pth"), width=1.0, input_px=224, mean=MEAN, std=STD)
    torch.save(small_zf5().state_dict(), tmp_path / "zf5.pth")
    with pytest.raises(UserError, match=r"lack conv\.3\.weight.*of another network"):
        alexnet(weights=str(tmp_path / "zf5.pth"), width=1.0, input_px=224, mean=MEAN, std=STD)
    torch.save(alexnet(width=0.25, **plain).state_dict(), tmp_path / "narrow.pth")
    with pytest.raises(UserError, match=r"conv\.0\.weight is \(16, 3, 11, 11\).*\(64, 3, 11, 11\)"):
        alexnet(weights=str(tmp_path / "narrow.pth"), width=1.0, input_px=224, mean=MEAN, std=STD)
    torch.save({"fc6.weight": torch.zeros(1)}, tmp_path / "head.pth")
    with pytest.raises(UserError, match=r"lack conv\.0\.weight"):
        alexnet(weights=str(tmp_path / "head.pth"), width=1.0, input_px=224, mean=MEAN, std=STD)
    with pytest.raises(UserError, match="nobody publishes zf5"):
        zf5(**{**plain, "weights": "imagenet"}, width=1.0, padding="paper", normalization="channel")


def test_failed_download_says_what_to_do_offline(monkeypatch):
    import detection.backbones.alexnet as module

    class Offline:
        url = "https://example.invalid/alexnet-0.pth"

        def get_state_dict(self, **_):
            raise OSError("no route to host")

    monkeypatch.setattr(module, "AlexNet_Weights", type("W", (), {"IMAGENET1K_V1": Offline()}))
    with pytest.raises(UserError, match=r"Offline: fetch .*alexnet-0\.pth.*backbone\.weights=PATH"):
        alexnet(weights="imagenet", width=1.0, input_px=224, mean=MEAN, std=STD)


@pytest.mark.parametrize("layer", [ChannelLRN(), SpatialLRN()])
def test_normalisation_keeps_its_type_under_autocast(layer, monkeypatch):
    """On a GPU autocast turns square roots into float32, and the gradient then met two types."""
    root = torch.Tensor.rsqrt
    exact = torch.is_autocast_enabled
    as_on_gpu = lambda t: root(t.float() if exact("cpu") else t)  # noqa: E731
    monkeypatch.setattr(torch.Tensor, "rsqrt", as_on_gpu)
    x = torch.randn(1, 8, 5, 5, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.bfloat16


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("make", [small_zf5, partial(caffenet, width=0.25, **plain)])
def test_a_step_in_mixed_precision_on_a_gpu(make):
    net = make().cuda()
    with torch.autocast("cuda", torch.bfloat16):
        net.maps(torch.randn(2, 3, 224, 224, device="cuda")).float().square().mean().backward()
    assert all(p.grad.isfinite().all() for p in net.conv.parameters())
