"""The per-class RPN: what is gathered is what would be computed whole; crops; training."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import fit
from rectangles import COLOURS, lite0, localization_figures, read_rectangles
from torch.optim import SGD, AdamW

from detection.boxes import clip_boxes_to_image
from detection.classification.classifier import AverageFeatures
from detection.combine.nms import NMS
from detection.data.samples import Sample
from detection.errors import UserError
from detection.evaluation.localization import LocalizationEvaluator
from detection.localization.images_stage import rows_with_boxes
from detection.localization.views import ScaledViews
from detection.rpn.anchors import Anchors
from detection.rpn.crops import BoxCrops
from detection.rpn.head import RPNHead
from detection.rpn.rpn import PerClassRPN
from detection.rpn.training import RPNOptions

IMAGE = Sample(torch.randint(0, 255, (3, 80, 110), dtype=torch.uint8), {}, "noise", 0)


def make(num_classes=2, **changes):
    torch.manual_seed(0)
    options = {
        "views": ScaledViews([72]),
        "anchors": Anchors([24, 40]),
        "side_px": 72,
        "hidden": 32,
    }
    return PerClassRPN(AverageFeatures(lite0()), num_classes, **{**options, **changes}).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_rectangles(tmp_path_factory)


@pytest.fixture
def head():
    torch.manual_seed(1)
    made = RPNHead(channels=7, anchors=3, num_classes=5, hidden=None)
    for part in made.parameters():
        torch.nn.init.normal_(part)
    return made


def whole(head, features):
    """All outputs, as two 1×1 convolutions: (P · A, C), (P · A, C, 4)."""
    score, box = head.score(features)[0], head.box(features)[0]
    cells = score.shape[1] * score.shape[2]
    score = score.view(3, 5, cells).permute(2, 0, 1).reshape(-1, 5)
    return score, box.view(3, 5, 4, cells).permute(3, 0, 1, 2).reshape(-1, 5, 4)


def test_the_asked_classes_are_what_the_whole_tensor_would_say(head):
    features = torch.randn(1, 7, 4, 6)
    labels = torch.tensor([3, 0])
    logits, codes = head.for_classes(features, labels)
    score, box = whole(head, features)
    torch.testing.assert_close(logits, score[:, labels])
    torch.testing.assert_close(codes, box[:, labels])


def test_the_gathered_loss_is_the_loss_of_the_whole_tensor(head):
    """And so are its gradients."""
    features = torch.randn(1, 7, 4, 6)
    number = torch.tensor([0, 17, 44, 71])
    label, is_object = torch.tensor([2, 2, 2, 2]), torch.tensor([1.0, 0, 1, 0])
    targets = torch.randn(2, 4)
    gradients = []
    for gathered in (True, False):
        head.zero_grad()
        if gathered:
            rows = features[0].flatten(1).T[number // 3]
            logits, codes = head.at(rows, number % 3, label)
        else:
            score, box = whole(head, features)
            logits, codes = score[number, label], box[number, label]
        loss = F.binary_cross_entropy_with_logits(logits, is_object)
        loss = loss + F.smooth_l1_loss(codes[is_object > 0], targets)
        loss.backward()
        gradients.append([loss.detach(), *(p.grad.clone() for p in head.parameters())])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_rpn_that_moves_nothing_says_its_anchors():
    model = make(views=ScaledViews([72, 96], flip=True), max_candidates=10_000)
    torch.nn.init.zeros_(model.head.box.weight)
    sample = model.transform(IMAGE)
    found = model.read(sample).candidates(torch.tensor([1]))
    expected = []
    for view, frame in zip(sample.views[0], model.views.frames(IMAGE.size), strict=True):
        boxes = model.anchor_boxes(model.maps(view[None]))
        expected.append(clip_boxes_to_image(frame.to_original(boxes), IMAGE.size))
    mine, theirs = (sorted(map(tuple, b.round(decimals=2).tolist()))
                    for b in (found["boxes"], torch.cat(expected)))  # fmt: skip
    np.testing.assert_allclose(mine, theirs, atol=0.02)
    best = make(max_candidates=5).read(make().transform(IMAGE)).candidates(torch.tensor([0, 1]))
    assert len(best["scores"]) == 10


@pytest.mark.parametrize("seed", range(6))
def test_boxes_of_a_crop_lie_on_their_objects(data, seed):
    split = data.split("train")
    crops = BoxCrops(split, np.arange(len(split)), 64, (64, 110), 0.4, flip=True)
    crop = crops[5, seed]
    assert crop.image.shape == (3, 64, 64)
    boxes = torch.cat([crop.boxes, crop.hidden])
    # one object: shown where the crop sees enough of it, or it fills so much of the crop
    whole = split.target(crop.index)["boxes"][0]
    pixels = np.prod((whole[2:] - whole[:2]).numpy())
    assert len(crop.boxes) + len(crop.hidden) <= 1
    if len(crop.boxes):
        seen = float(torch.prod(crop.boxes[0, 2:] - crop.boxes[0, :2]))
        assert seen >= 0.4 * min(pixels * (64 / 100) ** 2, 64**2)
    name = data.class_names[crop.label]
    colour = torch.tensor(COLOURS[name]).view(3, 1, 1)
    painted = ((crop.image.int() - colour).abs().sum(dim=0) < 60).nonzero()
    if len(boxes):
        y, x = painted.amin(dim=0).tolist()
        bottom, right = (painted.amax(dim=0) + 1).tolist()
        torch.testing.assert_close(
            boxes[0], torch.tensor([x, y, right, bottom]).float(), atol=1.5, rtol=0
        )


def test_it_learns_where_things_are(data, tmp_path):
    """On the true class, held out: far better than chance (the mean box fails in two of three)."""
    model = make(combine=NMS())
    options = RPNOptions(
        shorter_px=(64, 100), batch_size=8, epochs=14, anchors_per_image=16, backpropagate=False,
        optimizer=partial(AdamW, lr=3e-3), schedule=None,
    )  # fmt: skip
    before = model.classifier.features.backbone.conv.conv_stem.weight.clone()
    fit(options.stage(model, data, LocalizationEvaluator(), 0), tmp_path)
    assert torch.equal(before, model.classifier.features.backbone.conv.conv_stem.weight)
    assert localization_figures(model, data)["loc_error_true_class"] <= 0.35


def test_accumulated_gradients_are_those_of_the_large_batch(data, tmp_path):
    """The same weights in the end, learning rates and all: six steps of eight images."""
    learnt = []
    for batch_size, together in ((8, 1), (2, 4)):
        model = make()
        options = RPNOptions(
            shorter_px=(64, 100), batch_size=batch_size, epochs=1, backpropagate=False,
            optimizer=partial(SGD, lr=0.1, momentum=0.9), schedule=None,
        )  # fmt: skip
        stage = options.stage(model, data, LocalizationEvaluator(), 0)
        fit(stage, tmp_path, accumulate_grad_batches=together)
        assert stage.global_step == 6
        learnt.append(model.head.state_dict())
    before = make().head.state_dict()
    for name, value in learnt[0].items():
        assert not torch.equal(value, before[name])
        torch.testing.assert_close(value, learnt[1][name], rtol=1e-4, atol=1e-6)


def test_the_classifier_learns_on_where_its_maps_move(data, tmp_path):
    model = make(hidden=None)
    options = RPNOptions(
        shorter_px=(64, 80), batch_size=4, epochs=1, max_steps=2, optimizer=partial(AdamW, lr=1e-3)
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    fit(options.stage(model, data, LocalizationEvaluator(), 0), tmp_path)
    after = model.state_dict()
    for part in ("head.score", "head.box", "classifier.features.backbone.conv.conv_stem",
                 "classifier.head.outputs.classifier"):  # fmt: skip
        assert not torch.equal(before[f"{part}.weight"], after[f"{part}.weight"]), part


def test_a_class_without_boxes_is_told(data, caplog):
    """Its anchors never learn."""
    class_names = [*data.class_names, "yellow"]
    wider = SimpleNamespace(split=data.split, name="mine", num_classes=3, class_names=class_names)
    rows_with_boxes(wider)
    assert "no training image has a box of 1 of 3 classes (yellow)" in caplog.text
    caplog.clear()
    rows_with_boxes(data)
    assert "guesses" not in caplog.text


def test_a_classifier_without_a_loss_does_not_learn(data):
    """Its outputs would wait for gradients that never come, on several processes for ever."""
    for weight in (0.0, 1.0):
        model = make()
        options = RPNOptions(shorter_px=(64, 80), class_weight=weight)
        options.stage(model, data, LocalizationEvaluator(), 0).configure_model()
        free = [p.requires_grad for p in model.classifier.head.parameters()]
        assert all(p.requires_grad for p in model.classifier.features.backbone.conv.parameters())
        assert all(free) == any(free) == (weight > 0)


def test_crops_must_fit(data):
    with pytest.raises(UserError, match=r"shorter_px=\[32, 80\]: a range from 64 on"):
        RPNOptions(shorter_px=(32, 80)).stage(make(), data, LocalizationEvaluator(), 0)
