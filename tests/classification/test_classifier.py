"""Classifiers, their views, committees."""

import numpy as np
import pytest
import torch
from small_spp import INPUT, small, spp
from torchvision.models import alexnet as torchvision_alexnet

from detection.backbones.alexnet import alexnet
from detection.classification.classifier import Classifier, GridFeatures
from detection.classification.feature_svm import FeatureSVM
from detection.classification.views import CropViews, ViewSet, WholeViews, with_shorter_side
from detection.data.module import DataModule
from detection.data.samples import Sample, as_image
from detection.errors import UserError
from detection.metrics.top_k import TopKErrors
from detection.sppnet.image_features import PyramidFeatures
from detection.training.ensemble import Ensemble


def sample(pixels, number=0):
    return Sample(as_image(pixels), {}, str(number), number)


def image(height=90, width=130, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_alexnet_is_torchvisions(tmp_path):
    """The published last layer is used, for as many classes."""
    theirs = torchvision_alexnet().eval()
    torch.save(theirs.state_dict(), tmp_path / "alexnet.pth")
    made = alexnet(width=1.0, input_px=224, **{**INPUT, "weights": str(tmp_path / "alexnet.pth")})
    ours = Classifier(GridFeatures(made), 1000)
    pixels = torch.rand(2, 3, 224, 224)
    mean, std = (torch.tensor(INPUT[n]).view(3, 1, 1) for n in ("mean", "std"))
    torch.testing.assert_close(ours(pixels), theirs((pixels - mean) / std), rtol=1e-4, atol=1e-5)


def test_spp_takes_any_size():
    net = spp()
    for size in ((64, 64), (48, 80), (130, 70)):
        assert net(torch.rand(2, 3, *size)).shape == (2, 6)


def test_layers():
    net = spp()
    assert net.layers == ["conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7",
                          "logits"]  # fmt: skip
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    fc7 = net.activations(pixels, "fc7")
    assert (fc7 >= 0).all()
    torch.testing.assert_close(net.output(fc7), net(pixels))
    torch.testing.assert_close(net.activations(pixels, "logits"), net(pixels))
    maps = net.activations(pixels, "conv5")
    torch.testing.assert_close(net.features(maps), net.activations(pixels, "pool5"))
    assert net.activations(pixels, "conv2").shape[1] == net.features.backbone.conv[4].out_channels
    with pytest.raises(UserError, match=r"layer=fc8: .*conv1, conv2"):
        net.activations(pixels, "fc8")


def test_ten_views_of_the_whole_image():
    """SPP-net, 3.1: corners of the entire image, not of its central square."""
    places = ["centre", "top_left", "top_right", "bottom_left", "bottom_right"]
    views = CropViews(resize_px=None, crop_px=None, places=places, flip=True)
    views.bind(80, small())
    pixels = image()
    made = views(pixels)
    whole = with_shorter_side(pixels, 80)
    assert whole.shape[:2] == (80, 116)
    corners = [(8, 26), (0, 0), (0, 52), (16, 0), (16, 52)]
    for (y, x), view, mirror in zip(corners, made[:5], made[5:], strict=True):
        assert (view == whole[y : y + 64, x : x + 64]).all()
        assert (mirror == view[:, ::-1]).all()


def test_ten_views_of_the_central_square():
    """Krizhevsky et al. 2012: the corners are not those of the image."""
    places = ["top_left", "bottom_right"]
    views = CropViews(resize_px=None, crop_px=None, places=places, flip=False, square=True)
    views.bind(80, small())
    whole = with_shorter_side(image(), 80)  # 80×116: the square begins at column 18
    first, last = views(image())
    assert (first == whole[:64, 18:82]).all()
    assert (last == whole[16:, 34:98]).all()


def test_bad_views():
    with pytest.raises(UserError, match=r"\['middle'\] are unknown"):
        CropViews(resize_px=None, crop_px=None, places=["middle"], flip=False)
    views = CropViews(resize_px=60, crop_px=None, places=["centre"], flip=False)
    with pytest.raises(UserError, match="crop of 64 does not fit a side of 60"):
        views.bind(256, small())
    with pytest.raises(UserError, match="at least one kind"):
        ViewSet({"crops": None})


def test_scores_are_the_mean_over_all_views():
    """8 crops and 2 whole images (SPP-net, table 1), each as a batch of its own."""
    corners = ["top_left", "top_right", "bottom_left", "bottom_right"]
    views = ViewSet({
        "crops": CropViews(resize_px=None, crop_px=None, places=corners, flip=True),
        "whole": WholeViews(resize_px=None, flip=True),
        "off": None,
    })  # fmt: skip
    net = spp(views=views)
    batch = [net.transform(sample(p)) for p in (image(seed=1), image(120, 90, 2), image(seed=3))]
    for viewed, found in zip(batch, net.predict(batch), strict=True):
        each = [net(view[None]).softmax(dim=1)[0] for kind in viewed.views for view in kind]
        assert len(each) == 10
        torch.testing.assert_close(found["scores"], torch.stack(each).mean(dim=0))


def test_an_ensemble_is_the_mean_of_its_members():
    def whole():
        return ViewSet({"whole": WholeViews(resize_px=None, flip=False)})

    members = [spp(seed=n, views=whole()) for n in range(3)]
    ensemble = Ensemble(members, members[0].combination)
    batch = [ensemble.transform(sample(image()))]
    mean = torch.stack([m.predict(batch)[0]["scores"] for m in members]).mean(dim=0)
    torch.testing.assert_close(ensemble.predict(batch)[0]["scores"], mean)
    with pytest.raises(UserError, match="the same num_classes, and here are 6 and 4"):
        Ensemble([spp(), spp(classes=4)])


@pytest.mark.parametrize("classes", [3, 12])
def test_top_k_errors_are_torchmetrics(classes):
    from torchmetrics.functional.classification import multiclass_accuracy

    torch.manual_seed(0)
    scores, labels = torch.rand(50, classes), torch.randint(classes, (50,))
    metric = TopKErrors(classes)
    for part in (slice(20, 50), slice(0, 20), slice(3, 4)):  # one image twice, as by two processes
        metric.update(
            [{"scores": row} for row in scores[part]],
            [{"label": label} for label in labels[part]],
            range(50)[part],
        )
    found = metric.compute()
    for name, k in (("top1_error", 1), ("top5_error", min(5, classes))):
        right = multiclass_accuracy(scores, labels, classes, average="micro", top_k=k)
        assert float(found[name]) == pytest.approx(1 - float(right))
    confusion = metric.confusion(metric.table())
    assert confusion.sum() == 50
    assert confusion[labels[0], scores[0].argmax()] >= 1
    assert 1 - confusion.trace() / 50 == pytest.approx(float(found["top1_error"]))


def test_the_smallest_side_is_told():
    backbone = small()
    least = next(n for n in range(1, 100) if backbone.map_side(n) > 0)
    assert backbone.maps(torch.zeros(1, 3, least, least)).shape[2:] == (1, 1)
    with pytest.raises(UserError, match=f"resize_px=5 is too small.* {least} pixels"):
        WholeViews(resize_px=5, flip=False).bind(80, backbone)


def test_views_are_tried_before_training():
    """The network's mode stays, for Lightning would train it as it finds it."""
    data = DataModule(name="none", task="classification", layout=None, annotations=None)
    net = spp(views=ViewSet({"whole": WholeViews(resize_px=None, flip=True)})).train()
    net.prepare(data)
    assert net.training
    assert data.transform is net.transform
    small_views = ViewSet({"whole": WholeViews(resize_px=30, flip=False)})
    with pytest.raises(UserError, match="level 2 of the pyramid is larger than the map of 1×1"):
        spp(views=small_views).prepare(data)


def test_a_level_larger_than_the_map_is_refused():
    with pytest.raises(UserError, match="level 6 of the pyramid is larger than the map of 3×3"):
        spp(levels=(6, 1))(torch.rand(1, 3, 64, 64))


def test_an_ensemble_takes_one_kind_of_inputs():
    other = spp()
    other.features.backbone.input_px = 48
    with pytest.raises(UserError, match="the same input_px, and here are 64 and 48"):
        Ensemble([spp(), other])
    with pytest.raises(UserError, match="the same side_px"):
        Ensemble([spp(), spp(side_px=90)])
    svms = FeatureSVM(PyramidFeatures(small(), levels=(2, 1)), 6, layer="pool5", side_px=80)
    with pytest.raises(UserError, match="the same kind of scores"):
        Ensemble([spp(), svms])
