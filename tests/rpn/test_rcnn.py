"""R-CNN on the RPN's boxes: outputs of one class a region, mirrored targets, training."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import fit
from rectangles import lite0, localization_figures, read_rectangles
from torch.optim import AdamW

from detection.boxes import box_iou, decode
from detection.classification.classifier import AverageFeatures
from detection.combine.nms import NMS
from detection.data.samples import Sample
from detection.errors import TrainingError
from detection.evaluation.localization import LocalizationEvaluator
from detection.localization.views import ScaledViews
from detection.regions.warped_features import WarpedFeatures
from detection.rpn.anchors import Anchors
from detection.rpn.rcnn import BOXES, SCORES, RPNWithRCNN
from detection.rpn.rcnn_training import RCNNOptions, RPNFirst
from detection.rpn.rpn import PerClassRPN
from detection.training.schedules import TrainingLength

IMAGE = Sample(torch.randint(0, 255, (3, 80, 110), dtype=torch.uint8), {}, "noise", 0)
RPN = RPNFirst(
    shorter_px=(64, 100), batch_size=8, epochs=10, anchors_per_image=16, backpropagate=False,
    optimizer=partial(AdamW, lr=3e-3), schedule=None,
)  # fmt: skip
RCNN = RCNNOptions(
    batch_size=16, length=TrainingLength(1, 120, 60), optimizer=partial(AdamW, lr=1e-3),
    schedule=None, backpropagate=False,
)  # fmt: skip


def make(num_classes=2, **changes):
    torch.manual_seed(0)
    rpn = partial(
        PerClassRPN, AverageFeatures(lite0()), views=ScaledViews([72, 96]), side_px=72,
        anchors=Anchors([24, 40]), hidden=32, combine=NMS(),
    )  # fmt: skip
    regions = WarpedFeatures(lite0(), padding_px=8, grid=4, hidden=64)
    options = {"proposals": 10, "hidden_layers": True, **changes}
    return RPNWithRCNN(rpn, regions, num_classes, **options).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_rectangles(tmp_path_factory)


def measured(model, data):
    return localization_figures(model, data)["loc_error_true_class"]


def test_a_region_has_the_outputs_of_its_own_class():
    model = make(num_classes=5)
    pooled, labels = torch.randn(6, model.regions.out_features), torch.tensor([0, 4, 4, 1, 2, 3])
    logits, codes = model.outputs(pooled, labels)
    hidden = model.head.layers(pooled, model.head.last)
    rows = torch.arange(6)
    torch.testing.assert_close(logits, model.head.output(SCORES)(hidden)[rows, labels])
    whole = model.head.output(BOXES)(hidden).view(6, 5, 4)
    torch.testing.assert_close(codes, whole[rows, labels])


def test_it_looks_at_the_rpns_best_boxes_of_each_asked_class():
    model = make()
    torch.nn.init.zeros_(model.head.output(BOXES).weight)  # boxes stay
    sample = model.transform(IMAGE)
    assert sample.image.shape == IMAGE.image.shape  # regions are cut from it
    labels = torch.tensor([0, 1])
    proposed = model.propose(sample, labels)
    assert proposed["labels"].bincount().tolist() == [10, 10]
    overlaps = box_iou(proposed["boxes"], proposed["boxes"]).fill_diagonal_(0)
    same = proposed["labels"][:, None] == proposed["labels"][None]
    assert (overlaps * same).max() <= 0.7 + 1e-6
    found = model.read(sample).candidates(labels)
    torch.testing.assert_close(found["boxes"], proposed["boxes"], atol=1e-3, rtol=0)
    assert torch.equal(found["labels"], proposed["labels"])
    assert not torch.allclose(found["scores"], proposed["scores"])


def test_regions_come_from_many_images_and_know_their_objects(data, tmp_path):
    model = make()
    stage = RCNN.stage(model, data, LocalizationEvaluator(), 0)
    loader = stage.train_dataloader()
    batch = next(iter(loader))
    assert len({tuple(image.shape) for image in batch.images}) > 4
    assert batch.is_object[:4].all()
    assert not batch.is_object[4:].any()
    drawer = stage.drawer
    for n in range(4):
        code = batch.codes[n : n + 1].clone()
        if batch.mirror[n]:
            code[:, 0] *= -1
        box = decode(batch.boxes[n : n + 1], code)
        assert (drawer.gt - box).abs().amax(dim=1).min() < 0.01
    assert (batch.codes[4:] == 0).all()
    # found once: another stage of the same weights reads them
    folders = sorted((data.cache / "proposals").iterdir())
    RCNN.stage(model, data, LocalizationEvaluator(), 0).train_dataloader()
    assert sorted((data.cache / "proposals").iterdir()) == folders
    torch.nn.init.normal_(model.rpn.head.score.weight)
    RCNN.stage(model, data, LocalizationEvaluator(), 0).train_dataloader()
    assert len(list((data.cache / "proposals").iterdir())) == len(folders) + 1


def test_boxes_that_clipping_left_without_area_can_be_warped():
    """Anchors that are moved off the image are lines on its border; each class has a box still."""
    model = make()
    torch.nn.init.zeros_(model.rpn.head.box.weight)
    for away in (30.0, -30.0):
        with torch.no_grad():
            model.rpn.head.box.bias.view(-1, 4)[:] = torch.tensor([away, away, 0, 0])
        proposed = model.propose(model.transform(IMAGE), torch.tensor([0, 1]))
        boxes = proposed["boxes"]
        assert set(proposed["labels"].tolist()) == {0, 1}
        assert (boxes[:, 2:] - boxes[:, :2]).min() >= 1
        height, width = IMAGE.size
        assert boxes.min() >= 0
        assert (boxes <= torch.tensor([width, height] * 2)).all()
        (prediction,) = model.predict([model.transform(IMAGE)])
        assert len(prediction["boxes"]) == 2
    torch.nn.init.constant_(model.rpn.head.box.bias, float("nan"))
    with pytest.raises(TrainingError, match="are not numbers"):
        model.propose(model.transform(IMAGE), torch.tensor([0]))


def test_a_report_shows_boxes_before_and_after(data):
    model = make()
    model.prepare(data)
    (gallery,) = model.sections(data)
    assert len(gallery.groups) == 4
    for pictures in gallery.groups.values():
        assert len(pictures) == 4
        shown = [one.pixels.astype(int) for one in pictures]
        for one, other in pairwise(shown):
            assert np.abs(one - other).max() > 50  # other boxes are drawn
    (gallery,) = model.rpn.sections(data)
    assert {len(pictures) for pictures in gallery.groups.values()} == {3}


def test_it_learns_where_things_are(data, tmp_path):
    model = make()
    evaluator = LocalizationEvaluator()
    fit(RPN.stage(model, data, evaluator, 0), tmp_path / "rpn")
    before = {k: v.clone() for k, v in model.rpn.state_dict().items()}
    fit(RCNN.stage(model, data, evaluator, 0), tmp_path / "rcnn")
    assert all(torch.equal(before[k], v) for k, v in model.rpn.state_dict().items())
    error = measured(model, data)
    assert error <= 0.3
    assert np.isfinite(error)
