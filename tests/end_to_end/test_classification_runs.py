"""Whole runs of classifiers: training, resuming, views, committees, two processes, bad input."""

import csv
import json

import pytest
import torch
from commands import figures, kill_when, run

TINY = [
    "model=sppnet_classifier",
    "data=shapes_cls",
    "trainer=cpu",
    "logger=csv",
    "data.source.train=8",
    "data.source.test=4",
    "data.source.val=2",
    "model.side_px=72",
    "backbone.width=0.05",
    "backbone.input_px=64",
    "model.features.levels=[2,1]",
    "model.stages.train.sizes_px=[64,48]",
    "model.stages.train.epochs=3",
    "model.stages.train.batch_size=16",
    "model.stages.train.crops_per_checkpoint=32",  # two parts an epoch: it goes on inside one
    "model.stages.train.dropout=0.0",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, paths):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run("train.py", *TINY, *paths, f"run_dir={folder}")
    return folder


def of_test(folder):
    """What a run measured on test images."""
    return {k: v for k, v in figures(folder).items() if not k.startswith("val/")}


def weights(folder):
    return torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_all_that_it_should(finished):
    found = figures(finished)
    assert 0 <= found["test/top5_error"] <= found["test/top1_error"] <= 1
    page = (finished / "report" / "index.html").read_text()
    for words in (
        "Error of each class",
        "Most confused",
        "Filters of the first layers",
        "triangle",
    ):
        assert words in page


def test_guesses_are_written_for_each_image(finished):
    with (finished / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["image"] for row in rows}) == 24
    assert all(row["image"].split("/")[-2] == row["class"] for row in rows)
    wrong = sum(row["class"] != row["guess_1"] for row in rows)
    assert wrong / 24 == pytest.approx(figures(finished)["test/top1_error"])


def test_other_views_and_committees(finished, tmp_path, paths):
    """evaluate.py on ten views, and two copies as one on the run's own."""
    run("evaluate.py", f"ckpt={finished}", "views=ten", f"run_dir={tmp_path / 'ten'}", *paths)
    assert set(figures(tmp_path / "ten")) == set(of_test(finished))
    both = f"ckpt=[{finished},{finished}]"
    same = ["data=shapes_cls", "data.source.train=8", "data.source.test=4", "data.source.val=2"]
    run("evaluate.py", both, f"run_dir={tmp_path / 'both'}", *same, *paths)
    assert figures(tmp_path / "both") == of_test(finished)


def test_several_networks_in_one_run(tmp_path, paths):
    """OverFeat, table 2: the figures are those of their committee, each of a seed of its own."""
    words = [
        *TINY,
        *paths,
        "model.stages.train.epochs=1",
        "num_models=2",
        f"run_dir={tmp_path}/two",
    ]
    run("train.py", *words)
    first, second = tmp_path / "two" / "model_1", tmp_path / "two" / "model_2"
    assert not torch.equal(weights(first)["head.fc7.weight"], weights(second)["head.fc7.weight"])
    run("evaluate.py", f"ckpt=[{first},{second}]", f"run_dir={tmp_path / 'both'}", *paths)
    assert figures(tmp_path / "both") == of_test(tmp_path / "two")
    result = run("evaluate.py", f"ckpt={tmp_path / 'two'}", check=False)
    assert result.returncode == 2
    assert f"the run has 2, such as {first}" in result.stderr


@pytest.mark.slow  # the SVMs of detectors go the same way
def test_svms_on_two_processes(finished, tmp_path, paths):
    words = [w for w in TINY if not w.startswith(("model", "backbone", "trainer"))]
    words += ["model=feature_svm", "backbone.width=0.05", "model.features.levels=[2,1]"]
    words += [f"backbone.weights={finished}/model.ckpt", *paths]
    run("train.py", *words, "trainer=cpu", f"run_dir={tmp_path / 'one'}")
    run("train.py", *words, "trainer=ddp_cpu", f"run_dir={tmp_path / 'two'}")
    assert figures(tmp_path / "two") == figures(tmp_path / "one")


def test_a_detector_starts_from_a_classifier(finished, tmp_path):
    """Its convolutions, and fc6 and fc7 where its pyramid is the same."""
    from conftest import CONF
    from hydra import compose, initialize_config_dir

    from detection.config.build import build_model
    from detection.config.plain import plain
    from detection.runs.train import model_tree

    options = ["backbone=zf5", "backbone.width=0.05", f"backbone.weights={finished}/model.ckpt"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["model=sppnet", "model.features.levels=[2,1]", *options]))
    detector = build_model(model_tree(config), 3)
    state = weights(finished)
    for name in ("features.backbone.conv.0.weight", "head.fc6.weight", "head.fc7.bias"):
        assert torch.equal(detector.state_dict()[name], state[name])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["model=rcnn", *options]))
    detector = build_model(model_tree(config), 3)
    assert torch.equal(
        detector.state_dict()["features.backbone.conv.0.weight"],
        state["features.backbone.conv.0.weight"],
    )


@pytest.mark.slow  # the detectors' runs go the same way
def test_goes_on_after_kill(finished, tmp_path, paths):
    folder = tmp_path / "run"
    words = [*TINY, *paths, f"run_dir={folder}"]
    kill_when(lambda: (folder / "stages/1_train/last.ckpt").exists(), *words)
    assert not (folder / "metrics.json").exists()
    run("train.py", *words)
    assert figures(folder) == figures(finished)


def test_two_processes_learn_what_one_does(finished, tmp_path, paths):
    """The same images and sizes at every step, half of them on each."""
    folder = tmp_path / "two"
    words = ["trainer=ddp_cpu", "model.stages.train.batch_size=8", f"run_dir={folder}"]
    run("train.py", *TINY, *paths, *words)
    ours, theirs = weights(folder), weights(finished)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/top1_error"] == pytest.approx(
        figures(finished)["test/top1_error"], abs=1 / 24 + 1e-9
    )


def test_a_mistake_takes_one_line(tmp_path, paths):
    """Beside those of the config, which tests/test_config.py has."""
    words = [*TINY, *paths, "views=dense_1", f"run_dir={tmp_path}"]
    result = run("train.py", *words, check=False)
    assert result.returncode == 2
    assert "only a network whose fc6 reads one grid can be read densely" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "stages").exists()  # told before anything is trained
