"""Whole runs of localisers and of OverFeat's detector: resuming, processes, evaluate, predict."""

import json

import numpy as np
import pytest
import torch
from commands import figures, kill_when, run
from PIL import Image

from detection.runs.predict import PredictOptions
from detection.runs.prediction import predict
from detection.runs.predictor import Predictor

SMALL = [
    "trainer=cpu",
    "logger=csv",
    "backbone.groups=[5]",
    "backbone.stride=16",
    "backbone.input_px=64",
    "model.grid=4",
    "scales.sizes=[72,96]",
]
LOCALIZER = [
    "model=overfeat_localizer",
    "data=shapes_loc",
    *SMALL,
    "data.source.train=16",
    "data.source.val=3",
    "data.source.test=7",  # does not divide by two or three
    "model.side_px=72",
    "model.hidden=[32,16]",
    "model.stages.classify.epochs=2",
    "model.stages.regress.sizes=[72,96]",
    "model.stages.regress.epochs=4",
    "model.stages.regress.min_steps=0",
    "model.stages.regress.batch_size=4",
]
DETECTOR = [
    "model=overfeat_detector",
    "data=shapes",
    *SMALL,
    "data.source.train=12",
    "data.source.val=3",
    "data.source.test=7",
    "model.hidden=32",
    "model.box_hidden=[32,16]",
    "model.stages.detect.sizes=[72,96]",
    "model.stages.detect.epochs=3",
    "model.stages.detect.min_steps=0",
]


RCNN = [
    "model=rpn_rcnn",
    *[w for w in LOCALIZER[1:] if not w.startswith(("model.hidden", "model.stages.regress"))],
    "model.rpn.anchors.sizes_px=[16,32]",
    "model.rpn.hidden=16",
    "model.rpn.side_px=72",
    "model.regions.hidden=16",
    "model.regions.padding_px=4",
    "model.regions.grid=4",
    "model.proposals=6",
    "model.stages.rpn.shorter_px=[64,96]",
    "model.stages.rpn.epochs=3",
    "model.stages.rpn.min_steps=0",
    "model.stages.rpn.batch_size=4",
    "model.stages.rcnn.batch_size=8",
    "model.stages.rcnn.length={steps_per_image: 0, min_steps: 6, steps_per_epoch: 2}",
]
RCNN = [w for w in RCNN if not w.startswith(("model.grid", "model.side_px"))]
RPN = [w for w in RCNN if "rcnn" not in w and not w.startswith(("model.r", "model.proposals"))]
RPN.append("model=rpn")


@pytest.fixture(scope="module")
def localized(tmp_path_factory, paths):
    """A localiser's run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "localizer"
    run("train.py", *LOCALIZER, *paths, f"run_dir={folder}")
    return folder


def test_a_run_leaves_errors_predictions_and_the_papers_figures(localized):
    found = figures(localized)
    for name in ("loc_error_top5", "loc_error_top1", "loc_error_true_class", "top1_error"):
        assert 0 <= found[f"test/{name}"] <= 1
        assert f"val/{name}" in found
    assert found["test/loc_error_top5"] <= found["test/loc_error_top1"]
    page = (localized / "report" / "index.html").read_text()
    for words in ("What the errors come from", "figure 6", "figure 7", "by number of objects"):
        assert words in page
    lines = (localized / "predictions.csv").read_text().splitlines()
    assert lines[0].startswith("image,class,guess,score,x1")
    assert len(lines) == 1 + 7 * 5
    stages = sorted(p.parent.name for p in localized.glob("stages/*/done"))
    assert stages == ["1_classify", "2_regress"]


@pytest.mark.parametrize(
    ("words", "sign"),
    [
        pytest.param(LOCALIZER, "stages/1_classify/last.ckpt", marks=pytest.mark.slow),
        pytest.param(LOCALIZER, "stages/2_regress/last.ckpt", marks=pytest.mark.slow),
        pytest.param(DETECTOR, "stages/1_detect/last.ckpt", marks=pytest.mark.slow),
        pytest.param(RCNN, "stages/2_rpn/last.ckpt", marks=pytest.mark.slow),
        pytest.param(RCNN, "stages/3_rcnn/last.ckpt", marks=pytest.mark.slow),
    ],
)
def test_killed_in_a_stage_it_ends_with_the_same_figures(words, sign, localized, paths, tmp_path):
    stopped = tmp_path / "stopped"
    kill_when((stopped / sign).exists, *words, *paths, f"run_dir={stopped}")
    run("train.py", *words, *paths, f"run_dir={stopped}")
    whole = localized
    if words is not LOCALIZER:
        whole = tmp_path / "whole"
        run("train.py", *words, *paths, f"run_dir={whole}")
    assert figures(stopped) == pytest.approx(figures(whole), nan_ok=True)


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_several_processes_equal_one_where_an_image_is_left_over(
    processes, localized, paths, tmp_path
):
    """Tested images are counted once; training in parts of a batch is another, equal, test's."""
    split = tmp_path / "split"
    words = [f"ckpt={localized}", "logger=csv", f"run_dir={split}", *paths]
    run("evaluate.py", *words, "trainer=ddp_cpu", f"trainer.devices={processes}")
    one = {k: v for k, v in figures(localized).items() if k.startswith("test/")}
    assert {k: v for k, v in figures(split).items() if k.startswith("test/")} == pytest.approx(one)


@pytest.mark.slow  # a test by several processes is not
@pytest.mark.parametrize(
    ("words", "batch_size", "weight"),
    [
        (
            [*LOCALIZER, "model.stages.regress.dropout=0",
             "model.stages.regress.windows_per_image=1"],
            "model.stages.regress.batch_size", "regressor.outputs.boxes.weight",
        ),
        pytest.param(
            [*RPN, "model.anchors.sizes_px=[16,32]", "model.hidden=16", "model.stages.rpn.epochs=4",
             "model.stages.rpn.min_steps=0", "model.stages.rpn.shorter_px=[64,80]"],
            "model.stages.rpn.batch_size", "head.box.weight",
        ),
    ],
)  # fmt: skip
def test_two_processes_train_as_one_with_twice_the_batch(
    words, batch_size, weight, paths, tmp_path
):
    """One window an image, or as many anchors of each, so that a mean of means is the mean."""
    common = [*words, *paths, "model.stages.classify=null"]
    weights = []
    for devices, batch in ((1, 4), (2, 2)):
        folder = tmp_path / str(devices)
        ddp = ["trainer=ddp_cpu", f"trainer.devices={devices}"] if devices > 1 else []
        run("train.py", *common, *ddp, f"{batch_size}={batch}", f"run_dir={folder}")
        weights.append(torch.load(folder / "model.ckpt", weights_only=True)["state_dict"][weight])
    torch.testing.assert_close(weights[0], weights[1], atol=1e-4, rtol=1e-2)


def test_other_scales_combinations_and_classes_at_test_time(localized, tmp_path, paths):
    words = ["logger=csv", "trainer=cpu", *paths]
    run("evaluate.py", f"ckpt={localized}", *words, "combine=nms", "scales=one_crop",
        "scales.sizes=[72]", f"run_dir={tmp_path / 'crop'}")  # fmt: skip
    assert figures(tmp_path / "crop") != figures(localized)
    result = run("evaluate.py", f"ckpt={localized}", f"classes={localized}", *words,
                 f"run_dir={tmp_path / 'x'}", check=False)  # fmt: skip
    assert result.returncode == 2
    assert "names a model that is no classifier" in result.stderr + result.stdout
    classifier = tmp_path / "classifier"
    run("train.py", "model=pretrained_classifier", "data=shapes_cls", "debug=fast", *words,
        "backbone.input_px=64", "model.side_px=72", f"run_dir={classifier}")  # fmt: skip
    run("evaluate.py", f"ckpt={localized}", f"classes={classifier}", "views=whole", *words,
        f"run_dir={tmp_path / 'named'}")  # fmt: skip
    named = figures(tmp_path / "named")
    assert named["test/loc_error_true_class"] == figures(localized)["test/loc_error_true_class"]
    assert named["test/top1_error"] != figures(localized)["test/top1_error"]
    result = run("evaluate.py", f"ckpt=[{localized},{localized}]", *words,
                 f"run_dir={tmp_path / 'both'}")  # fmt: skip
    assert "test/loc_error_top1" in figures(tmp_path / "both")


def test_predict_shows_the_first_guess(localized, tmp_path):
    found = Predictor(localized)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 120, 3), np.uint8)
    ((name, _score, box),) = found(pixels)
    assert name in found.class_names
    assert box[2] > box[0]
    assert len(Predictor(localized, threshold=0.0)(pixels)) == 5
    options = PredictOptions(str(localized), str(write(pixels, tmp_path)), str(tmp_path / "out"))
    assert predict(options) == []
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(content["annotations"]) == 1


def write(pixels, folder):
    """A file of an image."""
    path = folder / "image.png"
    Image.fromarray(pixels).save(path)
    return path


def test_the_classifier_of_another_run_is_taken(localized, tmp_path, paths):
    """Of a localiser's, too; of another network it is refused."""
    folder = tmp_path / "taken"
    words = [*LOCALIZER, *paths, "model.per_class=true", f"run_dir={folder}"]
    result = run("train.py", *words, f"model.stages.classify.ckpt={localized}", "debug=fast")
    assert f"the classifier is that of {localized}" in result.stdout + result.stderr
    assert [p.parent.name for p in folder.glob("stages/*/done")] == ["1_regress"]
    states = [torch.load(f / "model.ckpt", weights_only=True)["state_dict"]
              for f in (folder, localized)]  # fmt: skip
    name = "classifier.head.outputs.classifier.weight"
    assert torch.equal(states[0][name], states[1][name])
    other = run("train.py", *LOCALIZER, *paths, "backbone.groups=[7]", "backbone.stride=32",
                "backbone.input_px=128", "scales.sizes=[128]", "model.stages.regress.sizes=[128]",
                "model.side_px=128", f"model.stages.classify.ckpt={localized}",
                f"run_dir={tmp_path / 'other'}", check=False)  # fmt: skip
    assert other.returncode == 2
    assert "its network is not the one here" in other.stdout + other.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=overfeat_localizer", "data=shapes"], "does not learn from data=shapes"),
        (["model=sppnet", "data=shapes_loc"], "does not learn from data=shapes_loc"),
        ([*LOCALIZER, "scales.sizes=[40]"], "a scale of 40 pixels is too small"),
        ([*LOCALIZER, "model.grid=3"], "grid=3 does not divide the 4 cells"),
        ([*LOCALIZER, "model.stages.regress.loss=l1"], "loss"),
    ],
)
def test_mistakes_are_told_in_a_line(words, message, paths, tmp_path):
    result = run("train.py", *words, *paths, f"run_dir={tmp_path / 'run'}", check=False)
    assert result.returncode == 2
    assert message in result.stdout + result.stderr
