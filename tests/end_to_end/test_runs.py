"""Whole runs of a tiny setting: all stages, resuming, evaluation, two processes, bad input."""

import csv
import json
import re
import shutil
import signal
import subprocess
import time
from functools import partial

import pytest
from commands import TINY, command, figures, kill_when, run
from conftest import ROOT

from detection.data.shapes.draw import draw_shapes


@pytest.fixture(scope="session")
def finished(tmp_path_factory, paths):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run("train.py", *TINY, *paths, f"run_dir={folder}")
    return folder


def test_a_run_leaves_all_that_it_should(finished):
    for name in ("config.yaml", "train.log", "model.ckpt", "metrics.json", "report/index.html"):
        assert (finished / name).stat().st_size > 0
    stages = sorted(p.name for p in (finished / "stages").iterdir())
    assert stages == ["1_pretrain", "2_finetune", "3_svm", "4_box_regression", "test", "val"]
    for stage in stages[:4]:
        assert (finished / "stages" / stage / "done").is_file()
        assert (finished / "stages" / stage / "curves").is_dir()
    metrics = figures(finished)
    for key in ("test/map", "val/map", "test/ap/ring", "proposals/recall_0.5"):
        assert 0 <= metrics[key] <= 1
    page = (finished / "report" / "index.html").read_text()
    assert not re.findall(r"(?:src|href|url)\W{1,2}https?:", page)  # nothing is fetched


def test_the_default_network_learns(paths, tmp_path):
    """From ImageNet on forty drawn images, on twenty others; chance is below 0.05."""
    words = ["data=shapes", "trainer=cpu", "logger=csv", "data.source.train=40", *paths,
             "data.source.val=4", "data.source.test=20", "data.threads=1",
             "model.stages.finetune.length={steps_per_image: 0, min_steps: 150}",
             f"run_dir={tmp_path}/run"]  # fmt: skip
    run("train.py", *words)
    learnt = figures(tmp_path / "run")
    assert learnt["test/map"] > 0.4
    low, high = (learnt[f"test/interval/map_{end}"] for end in ("low", "high"))
    assert low <= learnt["test/map"] <= high
    assert "boxes of each class" in (tmp_path / "run" / "train.log").read_text()


@pytest.mark.slow
def test_a_detector_learns(paths, tmp_path):
    """SPP-net from nothing on sixty drawn images: far over what chance gives (below 0.05)."""
    words = ["data=shapes", "backbone=zf5_small", "trainer=cpu", "logger=csv",
             "data.source.train=60", *paths,
             "data.source.val=4", "data.source.test=24", "data.threads=1",
             "model.stages.pretrain.crops_per_image=40", f"run_dir={tmp_path}/run"]  # fmt: skip
    run("train.py", *words)
    learnt = figures(tmp_path / "run")
    assert learnt["test/map"] > 0.12


def test_detections_are_written_in_both_formats(finished):
    coco = json.loads((finished / "detections" / "detections.json").read_text())
    lines = [
        line.split()
        for path in sorted((finished / "detections").glob("comp4_det_test_*.txt"))
        for line in path.read_text().splitlines()
    ]
    assert len(coco) == len(lines) > 0
    by_voc = sorted((i, float(s), float(x) - 1, float(y) - 1) for i, s, x, y, _, _ in lines)
    by_coco = sorted((d["image_id"], d["score"], *d["bbox"][:2]) for d in coco)
    for a, b in zip(by_voc, by_coco, strict=True):
        assert a[:2] == b[:2]
        assert a[2:] == pytest.approx(b[2:])


def test_evaluate_finds_the_same_figures_from_the_checkpoint_alone(finished, paths, tmp_path):
    ckpt = tmp_path / "alone.ckpt"
    ckpt.write_bytes((finished / "model.ckpt").read_bytes())
    run("evaluate.py", f"ckpt={ckpt}", "trainer=cpu", *paths, f"run_dir={tmp_path}/eval")
    assert figures(tmp_path / "eval") == of_test(finished)


def of_test(folder):
    """What a run measured on test images."""
    return {k: v for k, v in figures(folder).items() if not k.startswith("val/")}


@pytest.mark.parametrize(
    "stage", [pytest.param("3_svm", marks=pytest.mark.slow), "4_box_regression"]
)
def test_a_stage_validates_what_it_has_learnt(finished, paths, tmp_path, stage):
    """And not what the stage before has left."""
    folder = finished / "stages" / stage
    words = [w for w in TINY if w.startswith("data")]
    words += [f"ckpt={folder}", "trainer=cpu", "data.splits.test=val", *paths]
    run("evaluate.py", *words, f"run_dir={tmp_path}/eval")
    (curves,) = folder.glob("curves/*/metrics.csv")
    key = f"{stage[2:]}/val_map"
    values = [float(row[key]) for row in csv.DictReader(curves.open()) if row.get(key)]
    assert values[-1] == pytest.approx(figures(tmp_path / "eval")["test/map"], abs=1e-6)


def test_factored_layers_are_a_choice_of_the_test(finished, paths, tmp_path):
    """Of full rank (1,024 in zf5_small) they change nothing; of rank 1 it is another model."""
    found = {}
    for name, ranks in (("full", "[1024,1024]"), ("one", "[1,1]")):
        words = [f"ckpt={finished}", "trainer=cpu", f"svd_rank={ranks}", *paths]
        run("evaluate.py", *words, f"run_dir={tmp_path}/{name}")
        found[name] = figures(tmp_path / name)["test/map"]
    assert found["full"] == pytest.approx(figures(finished)["test/map"], abs=1e-6)
    assert found["one"] != found["full"]


@pytest.mark.slow  # localisers on two processes are not
def test_two_processes_find_the_same_figures(finished, paths, tmp_path):
    """Nine images over two processes: each exactly once."""
    run("evaluate.py", f"ckpt={finished}", "trainer=ddp_cpu", *paths, f"run_dir={tmp_path}/eval")
    assert figures(tmp_path / "eval") == of_test(finished)


def test_all_stages_run_on_two_processes(finished, paths, tmp_path):
    """SVMs and ridge regression gather: from the same fine-tuned weights, the same figures."""
    folder = tmp_path / "two"
    for stage in ("1_pretrain", "2_finetune"):
        shutil.copytree(finished / "stages" / stage, folder / "stages" / stage)
    words = [w for w in TINY if not w.startswith("trainer")]
    run("train.py", *words, "trainer=ddp_cpu", *paths, f"run_dir={folder}")
    assert figures(folder) == figures(finished)


@pytest.mark.slow
def test_a_whole_run_on_two_processes(paths, tmp_path):
    words = [w for w in TINY if not w.startswith("trainer")]
    run("train.py", *words, "trainer=ddp_cpu", *paths, f"run_dir={tmp_path}/run")
    assert (tmp_path / "run" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("1_pretrain", marks=pytest.mark.slow),
        pytest.param("2_finetune", marks=pytest.mark.slow),
        "3_svm",
        pytest.param("4_box_regression", marks=pytest.mark.slow),
    ],
)
def test_killed_in_a_stage_and_started_again(finished, paths, tmp_path, stage):
    """kill -9 as soon as the stage's folder is there; the figures are those of an unbroken run."""
    folder = tmp_path / "killed"
    words = [*TINY, *paths, f"run_dir={folder}"]
    place = folder / "stages" / stage

    def has_begun():
        if stage in ("1_pretrain", "2_finetune"):  # after an epoch, so that it goes on inside
            return (place / "last.ckpt").is_file() or (place / "done").is_file()
        return (place / "curves").is_dir()

    kill_when(has_begun, *words)
    assert not (folder / "metrics.json").is_file()
    run("train.py", *words)
    assert figures(folder) == figures(finished)


def test_interrupted_says_how_to_go_on(paths, tmp_path):
    folder = tmp_path / "stopped"
    process = subprocess.Popen(
        command("train.py", *TINY, *paths, f"run_dir={folder}"),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # where the tests themselves run in the background, Ctrl-C is switched off for children
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    while not (folder / "stages" / "1_pretrain" / "curves").is_dir():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "start again with the same run_dir=" in errors


def test_run_dir_belongs_to_one_config(finished, paths):
    result = run("train.py", *TINY, *paths, f"run_dir={finished}", "seed=2", check=False)
    assert result.returncode == 2
    assert "seed: 1 there, 2 now" in result.stderr


def test_loss_that_is_not_finite_stops_and_names_images(paths, tmp_path):
    words = [*TINY, *paths, f"run_dir={tmp_path}/nan"]
    rate = "model.stages.finetune.optimizer.lr=1e30"
    result = run("train.py", *words, rate, check=False)
    assert result.returncode == 1
    assert "the loss of stage finetune is" in result.stderr
    assert "windows of images 0000" in result.stderr
    assert (tmp_path / "nan" / "stages" / "1_pretrain" / "done").is_file()
    assert "Error executing job" not in result.stderr
    kept = (tmp_path / "nan" / "train.log").read_text()
    assert "the loss of stage finetune is" in kept
    assert "Traceback" in kept  # of one line on the screen


@pytest.mark.slow  # the config's rule is tested by itself
def test_the_advice_after_a_loss_that_is_not_finite_can_be_followed(paths, tmp_path):
    words = [*TINY, *paths, f"run_dir={tmp_path}/nan"]
    run("train.py", *words, "model.stages.finetune.optimizer.lr=1e30", check=False)
    (folder,) = (tmp_path / "nan" / "stages").glob("*_finetune")
    shutil.rmtree(folder)
    run("train.py", *words)
    assert (folder / "done").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=shapes_cls"], "is for classification, but"),
        (["views=ten"], "views= is for models of another kind"),
    ],
)
def test_a_detector_is_not_tested_as_a_classifier(words, message, finished, tmp_path, paths):
    result = run("evaluate.py", f"ckpt={finished}", *words, "trainer=cpu", *paths,
                 f"run_dir={tmp_path}/eval", check=False)  # fmt: skip
    assert result.returncode == 2
    assert message in result.stderr


def test_detector_of_other_classes_is_refused(finished, tmp_path, fake_voc):
    from detection.data.voc.annotation import VOCObject

    fake_voc.add("a", [VOCObject("cat", (5, 5, 30, 30))])
    fake_voc.add("b", [VOCObject("cat", (5, 5, 30, 30))])
    fake_voc.lists(train=["a"], test=["b"])
    words = [f"ckpt={finished}", "data=voc", f"data.root={fake_voc.root}", f"run_dir={tmp_path}/e"]
    result = run("evaluate.py", *words, check=False)
    assert result.returncode == 2
    assert "no object of the test images of " in result.stderr
    assert "is of the classes cross" in result.stderr
    assert "there are cat" in result.stderr


def test_drawing_again_gives_the_same_images(tmp_path):
    options = {"train": 2, "val": 1, "test": 1}
    first = draw_shapes(None, str(tmp_path / "a"), **options)
    second = draw_shapes(None, str(tmp_path / "b"), **options)
    assert first.name == second.name
    for path in sorted(first.rglob("*.*")):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
