"""Object scoring learns: its network on objects, the store of scores, both regressors."""

from functools import partial

import numpy as np
import pytest
import torch
from conftest import fit
from rectangles import lite0, localization_figures, read_rectangles
from torch.optim import AdamW

from detection.classification.classifier import AverageFeatures
from detection.classification.training import ClassificationOptions
from detection.data.box_examples import BACKGROUND, BoxExamples
from detection.data.examples import WholeImages
from detection.data.transforms import CentreOrCornerCrop
from detection.errors import UserError
from detection.evaluation.localization import LocalizationEvaluator
from detection.object_scoring.localizer import ObjectScoring
from detection.object_scoring.regression import ClassWiseOptions, RegressOptions
from detection.object_scoring.scored_images import Scored, ScoredImages
from detection.object_scoring.scoring import FinetuneOptions, ScoreOptions, score_store
from detection.object_scoring.views import SquareMap
from detection.proposals.squares import SquareGrid
from detection.training.ensemble import Ensemble
from detection.training.schedules import TrainingLength

EVALUATOR = LocalizationEvaluator()
ONE_CYCLE = {"optimizer": partial(AdamW, lr=3e-3), "schedule": None}


def make(**changes):
    torch.manual_seed(0)
    options = {"views": SquareMap([128]), "grid": SquareGrid(4), "side_px": 72, "hidden": (64,)}
    features = AverageFeatures(lite0()), AverageFeatures(lite0())
    return ObjectScoring(*features, 2, **{**options, **changes}).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return read_rectangles(tmp_path_factory)


@pytest.fixture(scope="module")
def scored(data, tmp_path_factory):
    """A model whose network has learnt, and whose scores are on disk."""
    model, folder = make(background=True), tmp_path_factory.mktemp("fit")
    options = ClassificationOptions(
        examples=WholeImages(CentreOrCornerCrop), batch_size=8, epochs=6, head_only=True,
        **ONE_CYCLE,
    )  # fmt: skip
    fit(options.stage(model.classifier, data, EVALUATOR, 0), folder)
    examples = BoxExamples(background=2.0, jitter=0.1)
    tuned = FinetuneOptions(examples=examples, batch_size=8, epochs=6, head_only=True, **ONE_CYCLE)
    fit(tuned.stage(model, data, EVALUATOR, 0), folder)
    stage = ScoreOptions().stage(model, data, EVALUATOR)
    assert stage.is_needed()
    fit(stage, folder)
    assert not ScoreOptions().stage(model, data, EVALUATOR).is_needed()
    return model


def test_it_learns_where_things_are(scored, data, tmp_path):
    """Held out, on the true class: the mean box fails in two of three."""
    before = localization_figures(scored, data)
    assert before["loc_error_true_class"] >= 0.8  # it says the whole image
    options = RegressOptions(batch_size=8, length=TrainingLength(0, 360, 120), **ONE_CYCLE)
    fit(options.stage(scored, data, EVALUATOR), tmp_path)
    shared = localization_figures(scored, data)
    assert shared["loc_error_true_class"] <= 0.4
    assert shared["top1_error"] <= 0.2
    options = ClassWiseOptions(
        min_images=10, batch_size=8, length=TrainingLength(0, 60, 30),
        optimizer=partial(AdamW, lr=3e-4), schedule=None,
    )  # fmt: skip
    fit(options.stage(scored, data, EVALUATOR), tmp_path)
    assert scored.regressor.is_tuned.all()
    assert not torch.equal(scored.regressor.weights[0][0], scored.regressor.weights[0][1])
    assert localization_figures(scored, data)["loc_error_true_class"] <= 0.4


def test_the_network_starts_as_the_image_classifiers_copy_once():
    model = make(background=True)
    torch.nn.init.normal_(model.classifier.output.weight)
    model.start_scorer()
    ours, theirs = model.scorer.output.weight, model.classifier.output.weight
    assert torch.equal(ours[:2], theirs)
    assert ours.shape[0] == 3
    torch.nn.init.zeros_(ours)
    model.start_scorer()
    assert not ours.any()
    again = make(background=True)
    again.load_state_dict(model.state_dict())
    assert bool(again.is_started)


def test_scores_on_disk_are_those_of_the_true_class_and_the_images_size(scored, data):
    split = data.split("train")
    rows = np.arange(len(split))
    store = score_store(scored, data, rows)
    assert store.is_complete
    for row in (0, 17):
        sample = scored.views(split.sample(row, scored.views.decode_px))
        expected = scored.square_scores(sample)[:, int(sample.target["label"])]
        np.testing.assert_allclose(store[row][0, :-2], expected, rtol=1e-5)
        assert tuple(store[row][0, -2:]) == sample.size == split.sample(row).size


def test_what_was_scored_when_it_stopped_is_not_scored_again(scored, data, monkeypatch, tmp_path):
    store = score_store(scored, data, np.arange(len(data.split("train"))))
    before = np.array(store.rows)
    done = np.fromfile(store.folder / "done.bin", np.uint8)
    done[[3, 30]] = 0
    done.tofile(store.folder / "done.bin")
    stage = ScoreOptions().stage(scored, data, EVALUATOR)
    assert stage.is_needed()
    with pytest.raises(UserError, match=r"no scores: model\.stages\.score is needed"):
        ScoredImages(scored, data, "largest", False)
    asked = []
    read = ObjectScoring.square_scores
    monkeypatch.setattr(
        ObjectScoring, "square_scores", lambda self, s: asked.append(s.index) or read(self, s)
    )
    fit(stage, tmp_path)
    assert sorted(asked) == [3, 30]
    np.testing.assert_allclose(score_store(scored, data, stage.rows).rows, before, rtol=1e-5)


def test_a_mirrored_image_has_mirrored_squares_and_boxes(scored, data):
    images = ScoredImages(scored, data, "largest", flip=True)
    plain, mirrored = (images.batch(np.array([5]), np.array([seed])) for seed in (2, 3))
    grid = scored.grid
    for k, other in enumerate(grid.mirrored().tolist()):
        assert plain.scores[0, k] == mirrored.scores[0, other]
    box = data.split("train").target(5)["boxes"][0]
    height, width = data.split("train").sample(5).size
    expected = box / torch.tensor([width, height, width, height])
    torch.testing.assert_close(plain.boxes[0], expected)
    torch.testing.assert_close(mirrored.boxes[0, [0, 2]], 1 - expected[[2, 0]])
    torch.testing.assert_close(mirrored.boxes[0, [1, 3]], expected[[1, 3]])


def test_of_several_objects_the_nearest_counts():
    said = torch.tensor([[0.0, 0, 1, 1], [0.5, 0.5, 1, 1]])
    boxes = torch.tensor([[0.0, 0, 1, 0.5], [0, 0, 1, 1.0], [0.5, 0.5, 1, 0.8]])
    batch = Scored(torch.zeros(2, 3), torch.zeros(2).long(), boxes, torch.tensor([0, 0, 1]))
    # the sums of squares: 0.25 and 0 of the first image's, 0.04 of the second's
    assert float(batch.loss(said, "l2")) == pytest.approx((0 + 0.04) / 2)


def test_a_class_of_few_images_keeps_the_shared_regressor_and_says_so(scored, data, caplog):
    stage = ClassWiseOptions(min_images=25).stage(scored, data, EVALUATOR)
    assert not stage.is_needed()
    assert "2 of 2 classes have fewer than 25 training images with boxes" in caplog.text
    assert "green, red" in caplog.text


def test_crops_of_objects_and_of_background(data):
    crops = BoxExamples(background=0.5, jitter=0.0).of(data.split("train"), 72, 64)
    assert len(crops) == 48 + 24
    for number in (0, 11):
        image, label = crops[number, 7]
        assert image.shape == (1, 3, 64, 64)
        # a rectangle of one colour, and nothing else
        assert image[0].float().flatten(1).std(dim=1).max() < 1
        assert label.tolist() == [int(data.split("train").target(number)["label"])]
    images, labels = zip(*(crops[n, 3] for n in range(48, 72)), strict=True)
    assert {int(label) for label in labels} == {BACKGROUND}
    assert min(float(i.float().std()) for i in images) > 10  # noise


def test_an_output_for_background_needs_crops_of_it(data):
    with pytest.raises(UserError, match=r"examples\.background=1 too"):
        FinetuneOptions().stage(make(background=True), data, EVALUATOR)
    with pytest.raises(UserError, match=r"stage train has no output"):
        ClassificationOptions(examples=BoxExamples(background=1.0)).stage(
            make().classifier, data, EVALUATOR
        )
    with pytest.raises(UserError, match="not below 0"):
        BoxExamples(jitter=-0.1)


def test_members_of_an_ensemble_name_the_classes_together(data):
    """One is sure of the first class, one a little of the second."""
    members = [make(), make()]
    for member, bias in zip(members, ([4.0, 0.0], [0.0, 1.0]), strict=True):
        torch.nn.init.zeros_(member.classifier.output.weight)
        member.classifier.output.bias.data = torch.tensor(bias)
    sample = members[0].transform(data.split("test").sample(0))
    alone = [int(member.predict([sample])[0]["labels"][0]) for member in members]
    assert alone == [0, 1]
    for order in (members, members[::-1]):
        assert int(Ensemble(order).predict([sample])[0]["labels"][0]) == 0


def test_background_needs_an_output(data):
    options = FinetuneOptions(examples=BoxExamples(background=1.0))
    with pytest.raises(UserError, match=r"add model\.background=true"):
        options.stage(make(), data, EVALUATOR)
    model = make(background=True)
    stage = options.stage(model, data, EVALUATOR)
    seen = []
    stage.model.forward = lambda images, dropout: torch.zeros(len(images), 3)
    stage.log = lambda *a, **k: seen.append(a)
    stage._trainer = None
    loss = torch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 2]))
    found = stage.training_step((torch.zeros(2, 3, 64, 64), torch.tensor([0, BACKGROUND])), 0)
    assert float(found) == pytest.approx(float(loss))
    sample = model.transform(data.split("test").sample(0))
    assert model.square_scores(sample).shape == (len(model.grid), 2)  # without it


def test_room_for_classes_is_needed(data):
    with pytest.raises(UserError, match=r"class_wise=false has no regressors"):
        ClassWiseOptions().stage(make(class_wise=False), data, EVALUATOR)
