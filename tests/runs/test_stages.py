"""Which stages are done, and how their checkpoints are written."""

import shutil
from types import SimpleNamespace

import pytest
import torch

from detection.errors import TrainingError, UserError
from detection.runs.stages import check_learnt, find_done, seconds_of
from detection.runs.train import model_folders, with_weights_of
from detection.runs.trainer import WholeCheckpoints, check_trainer, make_trainer


def test_names_of_stages_are_compared_whole(tmp_path):
    """`3_classwise_regress` is not `regress`."""
    for name in ("2_score", "3_classwise_regress"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done").touch()
    assert find_done(tmp_path, "regress") is None
    assert find_done(tmp_path, "score").parent.name == "2_score"
    assert find_done(tmp_path, "classwise_regress").parent.name == "3_classwise_regress"
    assert find_done(tmp_path / "none", "score") is None


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("unexpected pos 956032 vs 955920")],
)  # torch says it in either way
def test_a_checkpoint_is_written_whole(tmp_path, monkeypatch, error):
    """On a full disk the last one stays, and nothing lies beside it."""
    writer, path = WholeCheckpoints(), tmp_path / "last.ckpt"
    writer.save_checkpoint({"step": 1}, path)

    def full(content, temporary):
        temporary.write_bytes(b"half")
        raise error

    usage = SimpleNamespace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"last\.ckpt could not be written: No space left"):
        writer.save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]
    usage.free = 2**30
    if isinstance(error, RuntimeError):  # it was something else
        with pytest.raises(RuntimeError, match="unexpected pos"):
            writer.save_checkpoint({"step": 2}, path)


def test_weights_that_are_no_numbers_are_not_done(tmp_path):
    model = torch.nn.Linear(2, 2)
    check_learnt(model, "svm", tmp_path)
    model.bias.data[1] = float("nan")
    with pytest.raises(TrainingError, match=r"stage svm diverged: bias holds .* Delete "):
        check_learnt(model, "svm", tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"seconds": "long"}', "\0\0"])
def test_a_damaged_sign_of_a_stage_is_named(content, tmp_path):
    (tmp_path / "done").write_text(content)
    with pytest.raises(UserError, match=r"done .*delete it"):
        seconds_of(tmp_path / "done")


@pytest.mark.parametrize(("options", "message"), [
    ({"profilr": "simple"}, r"no option 'trainer\.profilr' \(did you mean profiler\?\)"),
    ({"strategy": "ddp_spawn"}, "use trainer=ddp"),
    ({"precision": "17-true"}, "trainer: "),
    ({"accelerator": "tpu"}, "trainer=cpu takes the processor"),
])  # fmt: skip
def test_mistakes_of_the_trainer_are_told_before_any_work(options, message):
    base = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "devices": 1}
    check_trainer(base, {})
    with pytest.raises(UserError, match=message):
        check_trainer({**base, **options}, {})


def test_every_trainer_writes_its_checkpoints_so(tmp_path):
    trainer = make_trainer(
        {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}, {}, tmp_path, [], {}
    )
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpoints)


def test_each_of_several_models_has_weights_of_its_own(tmp_path):
    """SPP-net, table 9: two networks of other random starts, in one run."""
    config = {"seed": 3, "num_models": 2, "backbone": {"weights": ["a", "b"]}}
    assert model_folders(config, tmp_path) == {tmp_path / "model_1": 3, tmp_path / "model_2": 4}
    tree = {"features": {"backbone": {"weights": ["a", "b"], "width": 1}, "levels": [2, 1]}}
    for number, name in enumerate("ab"):
        own = with_weights_of(number, tree)
        assert own == {"features": {"backbone": {"weights": name, "width": 1}, "levels": [2, 1]}}
    with pytest.raises(UserError, match=r"here are 3 \(num_models=2\)"):
        model_folders({**config, "num_models": 3}, tmp_path)
