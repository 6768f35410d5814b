"""SVMs on activations, against scikit-learn's own, and VOC's classification AP."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import fit
from sklearn.metrics import average_precision_score
from sklearn.svm import SVC

from detection.backbones.zf5 import zf5
from detection.classification.feature_svm import FeatureSVM
from detection.classification.svm_stage import FeatureSVMOptions
from detection.classification.views import ViewSet, WholeViews
from detection.data.classification import ClassificationAnnotations
from detection.data.folders.class_folders import ClassFolders
from detection.data.module import DataModule
from detection.data.shapes.draw_single import draw_shapes_cls
from detection.errors import UserError
from detection.evaluation.classification import ClassificationEvaluator
from detection.metrics.voc_classification import VOCClassificationAP, curve_of
from detection.sppnet.image_features import PyramidFeatures


def network(layer, classes=6, kind=None):
    torch.manual_seed(0)
    backbone = zf5(
        weights=None, width=0.05, padding="paper", normalization="channel", input_px=128,
        mean=[0.5] * 3, std=[0.25] * 3,
    )  # fmt: skip
    features = PyramidFeatures(backbone, levels=[6, 3, 2, 1], bins="adaptive")
    views = ViewSet({"one": kind}) if kind else None
    return FeatureSVM(features, classes, layer=layer, views=views).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("shapes"))
    made = DataModule(
        name="shapes_cls",
        task="classification",
        source=partial(draw_shapes_cls, download_to=folder, train=6, test=2, seed=0),
        layout=ClassFolders,
        annotations=ClassificationAnnotations(),
        val_images=0,
        cache=folder,
    )
    made.setup("test")
    made.splits["train"] = made.splits["test"]
    return made


def stage_of(detector, data):
    return FeatureSVMOptions().stage(detector, data, ClassificationEvaluator())


def test_the_finest_level_is_a_part_of_the_pyramid():
    """Tables 3 and 4: pool5 corresponds to the 6×6 level."""
    image = torch.rand(1, 3, 128, 150)
    net = network("grid5")
    finest = net.features(net.activations(image, "conv5"))[:, : 36 * net.features.backbone.channels]
    grid = torch.nn.functional.normalize(finest)
    ours = net.read(image)
    torch.testing.assert_close(ours.sort().values, grid.sort().values)  # in another order


def test_svms_are_scikit_learns_on_the_same_activations(data, tmp_path):
    detector = network("fc7")
    fit(stage_of(detector, data), tmp_path)
    loaded = [i for batch in data.loader("train", detector.transform, 4) for i in batch]
    examples = torch.cat([detector.read(i.views[0][0][None]) for i in loaded])
    labels = np.array([int(i.target["label"]) for i in loaded])
    for label in range(6):
        theirs = SVC(C=1.0, kernel="linear")
        theirs.fit(examples.double().numpy(), labels == label)
        np.testing.assert_allclose(detector.svm.weight[label].detach(), theirs.coef_[0], atol=1e-3)
        assert float(detector.svm.bias[label].detach()) == pytest.approx(
            theirs.intercept_[0], abs=1e-3
        )
    margins = detector.scores(torch.stack([i.views[0][0] for i in loaded]))
    torch.testing.assert_close(margins, detector.svm(examples))


def test_maps_of_whole_images_are_no_features(data, tmp_path):
    with pytest.raises(UserError, match=r"layer=conv4 gives \d+ numbers for a view of"):
        fit(stage_of(network("conv4", kind=WholeViews()), data), tmp_path)


def test_other_views_are_refused_in_tests_too():
    with pytest.raises(UserError, match=r"layer=conv4 gives \d+ numbers for a view of \(160, 128"):
        network("conv4").scores(torch.rand(1, 3, 160, 128))


def test_the_grid_is_a_layer_and_there_are_no_logits():
    """The extractor gives what the SVMs learnt from, and not what was never trained."""
    detector = network("grid5")
    assert detector.default_layer == "grid5"
    grid = detector.activations(torch.rand(1, 3, 128, 128), "grid5")
    assert grid.shape == (1, detector.svm.in_features)
    with pytest.raises(UserError, match="layer=logits: there is no such layer"):
        detector.activations(torch.rand(1, 3, 128, 128), "logits")


def test_too_many_images_are_refused_at_once(data, monkeypatch):
    monkeypatch.setattr("detection.classification.svm_stage.MOST", 2)
    with pytest.raises(UserError, match="at most 2 images, and here are"):
        stage_of(network("fc7"), data)


def test_several_views_are_refused(data, tmp_path):
    with pytest.raises(UserError, match="SVMs learn from one view"):
        fit(stage_of(network("fc7", kind=WholeViews(flip=True)), data), tmp_path)


def test_a_layer_that_is_not_there_lists_the_others():
    with pytest.raises(UserError, match=r"layer=fc8: choose one of conv1, .*fc7, grid5"):
        network("fc8")


def test_a_random_fc_behind_trained_convolutions_is_refused(data):
    """Weights of a pyramid of other levels bring no fc6."""
    detector = network("fc7")
    detector.features.backbone.pretrained = True
    with pytest.raises(UserError, match=r"layer=fc7: the weights hold no fc6 .*so it is random"):
        stage_of(detector, data)
    detector.head.pretrained = True
    stage_of(detector, data)


def test_margins_are_exact_where_the_network_is_not():
    """Rounded to bfloat16, margins tie."""
    detector = network("fc7")
    images = torch.rand(2, 3, 128, 128)
    with torch.autocast("cpu", torch.bfloat16):
        margins = detector.scores(images)
    assert margins.dtype == torch.float32
    assert not torch.equal(margins, margins.bfloat16().float())


def test_area_is_scikit_learns_where_precision_only_falls():
    """Their AP has no envelope: equal where all hits come first within each stretch."""
    scores = torch.arange(10, 0, -1, dtype=torch.double)
    labels = torch.tensor([1, 1, 1, -1, 1, -1, -1, 1, -1, -1])
    ours = curve_of(scores, labels).average_precision("area")
    assert ours == pytest.approx(average_precision_score(labels == 1, scores))


def test_eleven_points_by_hand_and_images_that_are_not_counted():
    """Ranks 1 and 4 right of two: precision 1 up to recall 0.5, then 0.5; row 2 is left out."""
    metric = VOCClassificationAP(2)
    scores = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4], [0.5, 0.5]])
    labels = torch.tensor([[1, -1], [0, -1], [-1, -1], [-1, -1], [1, -1]])
    for row in (3, 4, 0, 1, 2):
        metric.update([{"scores": scores[row]}], [{"labels": labels[row]}], [row])
    found = metric.compute()
    assert float(found["ap"][0]) == pytest.approx((6 * 1.0 + 5 * 0.5) / 11)
    assert torch.isnan(found["ap"][1])
    assert float(found["map"]) == float(found["ap"][0])
