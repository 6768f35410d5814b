"""Weights are chosen, and stages end, by validation."""

import json
from types import SimpleNamespace

import pytest
import torch
from commands import TINY, run
from torch import nn
from torch.utils.data import DataLoader

from detection.errors import UserError
from detection.evaluation.classification import ClassificationEvaluator
from detection.runs.best import BEST, KeepBest
from detection.runs.trainer import check_trainer, make_trainer
from detection.training.model import Model
from detection.training.stage import Stage

LOSSES = [0.9, 0.5, 0.3, 0.6, 0.4, 0.7, 0.2]  # of the validations, one an epoch


class Counter(Model):
    """Its weight is the number of epochs that it has seen."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.layer.weight)


class Counts(Stage):
    """One step an epoch, which adds 1; the losses of validation are given."""

    name = "count"

    def __init__(self, losses=tuple(LOSSES), fail_at=None):
        super().__init__(Counter(), SimpleNamespace(class_names=["a", "b"]),
                         ClassificationEvaluator())  # fmt: skip
        self.losses, self.fail_at = losses, fail_at

    def learns(self):
        return [self.model.layer]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def train_dataloader(self):
        if self.current_epoch == self.fail_at:
            raise RuntimeError("killed")
        return DataLoader([0.0])

    def trainer_options(self):
        return {"max_epochs": 7, "reload_dataloaders_every_n_epochs": 1}

    def val_dataloader(self):
        return DataLoader([0.0]) if self.losses else []

    def training_step(self, batch, batch_idx):
        return -self.model.layer.weight.sum()

    def classify(self, batch):
        """Two logits whose cross-entropy is the loss that is given."""
        wanted = torch.tensor(self.losses[self.current_epoch])
        logit = torch.log(torch.expm1(wanted))  # of the wrong class: log(1 + e^x) = wanted
        return torch.stack([torch.zeros(()), logit])[None], torch.tensor([0])


def fit(folder, callback, stage):
    config = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}
    trainer = make_trainer(config, {}, folder, [], stage.trainer_options())
    trainer.callbacks.insert(0, callback)
    last = folder / "last.ckpt"
    trainer.fit(stage, ckpt_path=str(last) if last.exists() else None, weights_only=True)
    return stage.model.layer.weight.item(), trainer


def test_the_weights_of_the_best_validation_are_kept(tmp_path):
    assert fit(tmp_path, KeepBest(), Counts())[0] == 1 + LOSSES.index(min(LOSSES))
    assert not (tmp_path / BEST).exists()


def test_accuracy_is_the_better_the_higher(tmp_path):
    """The loss is under log 2 where the guess is right; of equals the first is kept."""
    assert fit(tmp_path, KeepBest("val_accuracy"), Counts())[0] == 2


def test_a_stage_ends_when_its_patience_does(tmp_path):
    """The loss of the third epoch is not beaten in the two that follow."""
    weight, trainer = fit(tmp_path, KeepBest(patience=2), Counts())
    assert (weight, trainer.current_epoch) == (3, 5)


@pytest.mark.parametrize("at", range(1, 6))
def test_a_stopped_stage_comes_to_the_same(at, tmp_path):
    """Also where it was stopped with its patience at an end."""
    with pytest.raises(RuntimeError, match="killed"):
        fit(tmp_path, KeepBest(patience=3), Counts(fail_at=at))
    weight, trainer = fit(tmp_path, KeepBest(patience=3), Counts())
    assert (weight, trainer.current_epoch) == (3, 6)


def test_one_that_had_ended_goes_no_further(tmp_path):
    """The process was killed after its last checkpoint and before the end of its stage."""
    last = KeepBest(patience=2)
    last.on_fit_end = lambda *_: None
    fit(tmp_path, last, Counts())
    weight, trainer = fit(tmp_path, KeepBest(patience=2), Counts(losses=(0.0,) * 7))
    assert (weight, trainer.current_epoch) == (3, 5)


def test_without_validation_the_last_are_kept_and_it_is_told(tmp_path, caplog):
    assert fit(tmp_path, KeepBest(), Counts(losses=()))[0] == 7
    assert "count was not validated" in caplog.text
    assert "data.val_images" in caplog.text


@pytest.mark.parametrize(("options", "message"), [
    ({"figure": "test/map"}, r"figure=test/map: weights are chosen on validation images"),
    ({"figure": {"finetune": "test_loss"}}, "chosen on validation images"),
    ({"patience": 0}, "patience=0: at least one"),
])  # fmt: skip
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        KeepBest(**options)


def test_a_figure_that_a_stage_has_not_is_named(tmp_path):
    with pytest.raises(UserError, match=r"stage count is validated by val_loss"):
        fit(tmp_path, KeepBest("val_map"), Counts())
    assert fit(tmp_path, KeepBest({"other": "val_map"}), Counts())[0] == 7


def test_nothing_else_chooses_by_test_images():
    stopping = {"_target_": "pytorch_lightning.callbacks.EarlyStopping", "monitor": "test/map"}
    trainer = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu"}
    with pytest.raises(UserError, match=r"callbacks\.mine\.monitor=test/map"):
        check_trainer(trainer, {"mine": stopping})
    check_trainer(trainer, {"mine": {**stopping, "monitor": "finetune/val_loss"}})


def test_a_whole_run_chooses_in_each_stage(tmp_path):
    words = [*TINY, "callbacks=early_stopping", "model.stages.finetune.length.steps_per_epoch=2",
             f"paths.data={tmp_path}", f"paths.cache={tmp_path}"]  # fmt: skip
    done = run("train.py", *words, f"run_dir={tmp_path / 'run'}")
    said = done.stdout + done.stderr
    assert "pretrain: the weights after epoch" in said
    assert "finetune: the weights after" in said
    assert not list((tmp_path / "run").rglob(BEST))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test/map"] >= 0
    changed = run("train.py", *words, "callbacks.best.patience=9", f"run_dir={tmp_path / 'run'}",
                  check=False)  # fmt: skip
    assert changed.returncode == 2
    assert "callbacks.best.patience" in changed.stderr
