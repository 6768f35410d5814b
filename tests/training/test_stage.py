"""What all stages share."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from detection.data.samplers import ShardSampler
from detection.errors import UserError
from detection.runs.trainer import make_trainer
from detection.training.stage import Stage


class Data:
    """A data module whose loader shares images out as ours do."""

    trainer = None

    def rows(self):
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        return list(ShardSampler(5, rank, world))


def test_a_stage_tells_its_data_which_process_it_is_on():
    """Lightning does so only for data that is handed to it: each would look at all images."""
    data = Data()
    stage = Stage(nn.Linear(1, 1), data)
    assert data.rows() == [0, 1, 2, 3, 4]
    stage._trainer = SimpleNamespace(global_rank=1, world_size=2)
    stage.setup("test")
    assert data.rows() == [1, 3]


def test_a_stage_goes_on_with_as_many_processes_alone():
    """Batch sizes are of each: rates that follow the steps would be others."""
    stage = Stage(nn.Linear(1, 1), Data())
    stage._trainer = SimpleNamespace(world_size=2)
    stage.on_fit_start()
    checkpoint = {}
    stage.on_save_checkpoint(checkpoint)
    stage.on_load_checkpoint(checkpoint)
    stage._trainer = SimpleNamespace(world_size=1)
    with pytest.raises(UserError, match=r"begun on 2 processes .* trainer\.devices=2"):
        stage.on_load_checkpoint(checkpoint)


def test_gradients_are_not_accumulated(tmp_path):
    with pytest.raises(UserError, match="accumulate_grad_batches: rates and seeds"):
        make_trainer({"accumulate_grad_batches": 2}, {}, tmp_path, [], {})


def test_validation_of_classifiers_is_loss_and_accuracy(monkeypatch):
    stage = Stage(nn.Linear(1, 1), Data())
    logged = {}
    monkeypatch.setattr(stage, "log", lambda key, value, **_: logged.update({key: float(value)}))
    stage.log_validation(torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1]))
    assert logged["test/val_accuracy"] == 0.5
    assert abs(logged["test/val_loss"] - 4.5) < 1e-3
