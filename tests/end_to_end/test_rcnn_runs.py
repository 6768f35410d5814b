"""R-CNN from the command line: a whole run, killed and resumed, on two processes."""

import shutil

import pytest
from commands import TINY, figures, kill_when, run

RCNN = [
    *(word for word in TINY if "scales_px" not in word),
    "model=rcnn",
    "model.features.batch_size=64",
    "proposals.search.max_boxes=60",
    "model.stages.finetune.length.min_steps=4",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, paths):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run("train.py", *RCNN, *paths, f"run_dir={folder}")
    return folder


def test_all_stages(finished):
    stages = sorted(p.parent.name for p in finished.glob("stages/*/done"))
    assert stages == ["1_pretrain", "2_finetune", "3_svm", "4_box_regression"]
    assert not list(finished.glob("stages/*/examples"))  # features of examples are gone
    assert 0 <= figures(finished)["test/map"] <= 1


@pytest.mark.slow
def test_killed_while_features_are_computed(finished, tmp_path):
    """The features that were done count; those of half an image do not."""
    cache = tmp_path / "cache"
    folder = tmp_path / "killed"
    for stage in ("1_pretrain", "2_finetune"):
        shutil.copytree(finished / "stages" / stage, folder / "stages" / stage)
    words = [*RCNN, f"paths.data={tmp_path}", f"paths.cache={cache}", f"run_dir={folder}"]

    def some_are_done():
        files = list(cache.glob("features/*/done.bin"))
        return files and files[0].stat().st_size and sum(files[0].read_bytes()) >= 3

    kill_when(some_are_done, *words)
    assert sum(next(cache.glob("features/*/done.bin")).read_bytes()) < 25
    run("train.py", *words)
    assert figures(folder) == figures(finished)


@pytest.mark.slow
def test_two_processes_share_the_features(finished, paths, tmp_path):
    """From the same fine-tuned weights, the same figures."""
    folder = tmp_path / "two"
    for stage in ("1_pretrain", "2_finetune"):
        shutil.copytree(finished / "stages" / stage, folder / "stages" / stage)
    words = [w for w in RCNN if not w.startswith("trainer")]
    run("train.py", *words, "trainer=ddp_cpu", *paths, f"paths.cache={tmp_path / 'cache'}",
        f"run_dir={folder}")  # fmt: skip
    assert figures(folder) == figures(finished)


@pytest.mark.slow
def test_training_on_two_processes(paths, tmp_path):
    words = [w for w in RCNN if not w.startswith("trainer")]
    words += ["model.scoring=softmax", "model.stages.box_regression=null"]
    run("train.py", *words, "trainer=ddp_cpu", *paths, f"run_dir={tmp_path}/run")
    assert (tmp_path / "run" / "metrics.json").is_file()
