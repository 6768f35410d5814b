"""OverFeat's networks against the paper's tables, and the reader of the released weights."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import real_data
from torch import nn

from detection.backbones.averaged import googlenet, resnet
from detection.backbones.facts import facts
from detection.backbones.overfeat import overfeat_accurate, overfeat_fast
from detection.backbones.overfeat_weights import released_wnids
from detection.classification.classifier import AverageFeatures, Classifier, GridFeatures
from detection.errors import UserError

INPUT = {"mean": [0.46] * 3, "std": [0.24] * 3}
OPTIONS = {"weights": None, "init_std": 0.01, **INPUT}
FAST = {**OPTIONS, "width": 1.0, "input_px": 231}
ACCURATE = {**OPTIONS, "width": 1.0, "input_px": 221}


def classifier(backbone, classes=1000):
    return Classifier(GridFeatures(backbone), classes)


@pytest.mark.parametrize(
    ("make", "options", "parameters", "millions"),
    [(overfeat_fast, FAST, 145_920_872, 2810), (overfeat_accurate, ACCURATE, 144_656_488, 5369)],
)
def test_parameters_and_connections_of_the_paper(make, options, parameters, millions):
    """Tables 1, 3 and 4; the released files hold exactly so many numbers."""
    with torch.device("meta"):
        found = facts(classifier(make(**options)), options["input_px"], options["input_px"])
    assert found.parameters == parameters
    assert found.connections / 1e6 == pytest.approx(millions, rel=0.005)


@pytest.mark.parametrize(
    ("make", "options", "sides"),
    [
        (overfeat_fast, FAST, [56, 28, 24, 12, 12, 12, 12]),
        (overfeat_accurate, ACCURATE, [108, 36, 30, 15, 15, 15, 15, 15]),
    ],
)
def test_maps_of_the_paper(make, options, sides):
    """Tables 1 and 3; the 24×24 of table 1 stands behind the second convolution."""
    with torch.device("meta"):
        found = facts(classifier(make(**options)), options["input_px"], options["input_px"])
    assert [height for kind, height, _ in found.maps if kind != "Linear"] == sides


@pytest.mark.parametrize(("make", "count"), [(overfeat_fast, 8), (overfeat_accurate, 9)])
def test_released_weights_are_read_in_order(tmp_path, make, count):
    """Every layer's weights, then its bias; classes from the released order to the alphabetical."""
    options = {**OPTIONS, "width": 0.05, "input_px": 64}
    source = classifier(make(**options))
    for bias in (p for p in source.parameters() if p.dim() == 1):
        nn.init.normal_(bias)
    layers = [m for m in source.modules() if isinstance(m, nn.Conv2d)]
    layers += [source.head.fc6, source.head.fc7, source.output]
    assert len(layers) == count
    blocks = [p.detach().numpy().ravel() for m in layers for p in (m.weight, m.bias)]
    np.concatenate(blocks).astype("<f4").tofile(tmp_path / "net_weight_0")
    given = {"weights": str(tmp_path / "net_weight_0")}
    made = make(**{**options, **given})
    read = classifier(made)
    image = torch.rand(1, 3, 240, 240)
    theirs, ours = source(image)[0], read(image)[0]
    # ORIGINAL_FACTS, 3.1: kit fox first, tench 448 and goldfish 449, which are 0 and 1 elsewhere
    assert ours[[0, 1, 278]].tolist() == theirs[[448, 449, 0]].tolist()
    assert made.pretrained
    with pytest.raises(UserError, match=r"has \d+ bytes, but this network's file has \d+"):
        make(**{**options, **given, "width": 0.1})


def test_released_classes_are_the_development_kits():
    """In the order of its ILSVRC2012_ID."""
    wnids = released_wnids()
    assert len(set(wnids)) == 1000
    mapping = (real_data("ilsvrc_meta") / "ILSVRC2012_mapping.txt").read_text().split()
    assert wnids == mapping[1:2000:2]


def test_resnet_with_its_two_strides():
    """25,557,032 parameters either way; the original halves the map before the 3×3."""
    made = {}
    for place in ("3x3", "1x1"):
        net = resnet(blocks=[3, 4, 6, 3], stride_on=place, weights=None, input_px=224, **INPUT)
        made[place] = Classifier(AverageFeatures(net), 1000)
        assert sum(p.numel() for p in made[place].parameters()) == 25_557_032
        assert net.field.stride == 32
        assert net.maps(torch.zeros(1, 3, 64, 64)).shape == (1, 2048, 2, 2)
    meta = {k: facts(v, 224, 224).connections for k, v in made.items()}
    assert meta["3x3"] > meta["1x1"]
    assert meta["1x1"] / 1e9 == pytest.approx(3.8, abs=0.1)  # He et al., table 1


def test_googlenet_is_torchvisions():
    net = googlenet(weights=None, input_px=224, **INPUT)
    found = facts(Classifier(AverageFeatures(net), 1000), 224, 224)
    assert found.parameters == 6_624_904  # torchvision's documentation, without its two helpers
    assert net.field.stride == 32
    with pytest.raises(UserError, match="no fully connected layers"):
        GridFeatures(net).fully_connected()


def test_weights_of_another_network_are_refused(tmp_path):
    """Not a layer of them may be left random, or left out."""
    small = partial(resnet, stride_on="3x3", input_px=224, **INPUT)
    net = small(blocks=[1, 1, 1, 1], weights=None)
    torch.save(net.state_dict(), tmp_path / "bare.pth")
    detector = {f"features.backbone.{k}": v for k, v in net.state_dict().items()}
    torch.save({"state_dict": detector}, tmp_path / "run.ckpt")
    for name in ("bare.pth", "run.ckpt"):
        again = small(blocks=[1, 1, 1, 1], weights=str(tmp_path / name))
        assert again.pretrained
        assert all(torch.equal(a, b) for a, b in
                   zip(again.parameters(), net.parameters(), strict=True))  # fmt: skip
        with pytest.raises(UserError, match=r"lack conv\.6\.1\..*of another network"):
            small(blocks=[1, 1, 2, 1], weights=str(tmp_path / name))
        with pytest.raises(UserError, match="of another network"):
            googlenet(weights=str(tmp_path / name), input_px=224, **INPUT)
