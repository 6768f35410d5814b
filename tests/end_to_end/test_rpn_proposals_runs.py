"""A detector whose proposals a network finds, from the command line."""

import shutil

import pytest
from commands import TINY, figures, kill_when, run

pytestmark = pytest.mark.slow  # a run on a pretended accelerator is not

WORDS = [
    *(word for word in TINY if not word.startswith("proposals.")),
    "proposals=rpn",
    "proposals.search.max_boxes=40",
    "proposals.search.sizes=[96]",
    "proposals.search.anchors.sizes_px=[16,32]",
    "proposals.search.hidden=32",
    "proposals.training.max_steps=null",
    "proposals.training.epochs=1",
    "proposals.training.batch_size=4",
    "model.scoring=softmax",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory, paths):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run("train.py", *WORDS, *paths, f"run_dir={folder}")
    return folder


def test_the_network_is_a_stage_and_its_recall_is_told(finished):
    stages = sorted(p.parent.name for p in finished.glob("stages/*/done"))
    assert stages == ["1_propose", "2_pretrain", "3_finetune", "4_box_regression"]
    found = figures(finished)
    assert 0 < found["proposals/recall_0.5"] <= 1
    assert 0 < found["proposals/boxes_per_image"] <= 40


def test_evaluation_has_the_same_figures(finished, paths, tmp_path):
    run("evaluate.py", f"ckpt={finished}", "trainer=cpu", *paths, f"run_dir={tmp_path / 'again'}")
    before, again = figures(finished), figures(tmp_path / "again")
    for key in ("test/map", "proposals/recall_0.5", "proposals/recall_0.7"):
        assert again[key] == before[key], key


@pytest.mark.parametrize("sign", ["stages/1_propose/last.ckpt", "stages/3_finetune"])
def test_killed_and_started_again_it_ends_with_the_same_figures(sign, finished, paths, tmp_path):
    folder = tmp_path / "killed"
    words = [*WORDS, *paths, f"paths.cache={tmp_path / 'cache'}", f"run_dir={folder}"]
    kill_when((folder / sign).exists, *words)
    run("train.py", *words)
    assert figures(folder) == figures(finished)


def test_two_processes_propose_the_same(finished, paths, tmp_path):
    """From the same network: one of them finds the boxes, both look at them."""
    folder = tmp_path / "two"
    for stage in ("1_propose", "2_pretrain", "3_finetune"):
        shutil.copytree(finished / "stages" / stage, folder / "stages" / stage)
    words = [word for word in WORDS if not word.startswith("trainer")]
    run("train.py", *words, "trainer=ddp_cpu", *paths, f"paths.cache={tmp_path / 'cache'}",
        f"run_dir={folder}")  # fmt: skip
    assert figures(folder) == figures(finished)
