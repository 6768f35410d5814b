"""Whole runs of object scoring: what they leave, resuming, processes, crops in place of a map."""

import numpy as np
import pytest
import torch
from commands import figures, kill_when, run

from detection.disk.arrays import RaggedArray
from detection.runs.predictor import Predictor

SCORING = [
    "model=object_scoring",
    "data=shapes_loc",
    "trainer=cpu",
    "logger=csv",
    "backbone.groups=[5]",
    "backbone.stride=16",
    "backbone.input_px=64",
    "scales.sizes=[96]",
    "model.grid.cells=3",
    "model.side_px=72",
    "model.hidden=[16]",
    "data.source.train=16",
    "data.source.val=3",
    "data.source.test=7",
    "model.stages.classify.epochs=2",
    "model.stages.finetune.epochs=2",
    "model.stages.regress.batch_size=4",
    "model.stages.regress.length={steps_per_image: 0, min_steps: 6, steps_per_epoch: 3}",
    "model.stages.class_wise.min_images=3",
    "model.stages.class_wise.length={steps_per_image: 0, min_steps: 4, steps_per_epoch: 2}",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, paths):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "scoring"
    run("train.py", *SCORING, *paths, f"run_dir={folder}")
    return folder


def test_a_run_leaves_errors_and_maps_of_heat(finished, paths, tmp_path):
    found = figures(finished)
    for name in ("loc_error_top5", "loc_error_top1", "loc_error_true_class", "top1_error"):
        assert 0 <= found[f"test/{name}"] <= 1
    stages = sorted(path.parent.name for path in finished.glob("stages/*/done"))
    names = ("classify", "finetune", "score", "regress", "class_wise")
    assert stages == [f"{n + 1}_{name}" for n, name in enumerate(names)]
    assert "squares of 1 to n cells" in (finished / "report" / "index.html").read_text()
    assert len(list(finished.glob("report/pictures/example1_*.jpg"))) == 3 + 1
    ((name, score, box),) = Predictor(finished)(torch.zeros(3, 40, 300, dtype=torch.uint8).numpy()
                                                .transpose(1, 2, 0))  # fmt: skip
    assert name in Predictor(finished).class_names
    assert 0 < score < 1
    assert 0 <= box[0] <= box[2] <= 300
    words = [f"ckpt={finished}", "logger=csv", "trainer=cpu", "scales=squares", *paths]
    run("evaluate.py", *words, "scales.sizes=[96]", f"run_dir={tmp_path / 'crops'}")
    assert "test/loc_error_true_class" in figures(tmp_path / "crops")


@pytest.mark.slow
@pytest.mark.parametrize(
    "sign",
    ["2_finetune/last.ckpt", "2_finetune/done", "4_regress/last.ckpt", "5_class_wise/last.ckpt"],
)
def test_killed_in_a_stage_it_ends_with_the_same_figures(sign, finished, paths, tmp_path):
    stopped = tmp_path / "stopped"
    words = [*SCORING, f"paths.cache={tmp_path / 'cache'}", *paths, f"run_dir={stopped}"]
    kill_when((stopped / "stages" / sign).exists, *words)
    run("train.py", *words)
    assert figures(stopped) == pytest.approx(figures(finished), nan_ok=True)


@pytest.mark.slow
def test_two_processes_equal_one(finished, paths, tmp_path):
    """In test; and they score the training images once between them."""
    words = ["logger=csv", "trainer=ddp_cpu", "trainer.devices=2"]
    run("evaluate.py", f"ckpt={finished}", *words, f"run_dir={tmp_path / 'split'}", *paths)
    one = {k: v for k, v in figures(finished).items() if k.startswith("test/")}
    split = {k: v for k, v in figures(tmp_path / "split").items() if k.startswith("test/")}
    assert split == pytest.approx(one)
    own = [w for w in SCORING if not w.startswith(("trainer", "logger"))]
    cache = tmp_path / "cache"
    run("train.py", *own, *words, *paths, f"paths.cache={cache}", f"run_dir={tmp_path / 'two'}")
    (store,) = (cache / "scores").iterdir()  # one for both
    assert RaggedArray(store).is_complete
    assert np.abs(RaggedArray(store).rows[:, :-2]).max(axis=1).min() > 0
