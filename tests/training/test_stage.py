"""What all stages share."""

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from detection.data.samples import Sample
from detection.errors import TrainingError, UserError
from detection.evaluation.classification import ClassificationEvaluator
from detection.training.model import Model
from detection.training.stage import Stage


class Guess(Model):
    """Says the class that is written in the image's first pixel."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))

    def predict(self, batch):
        labels = torch.stack([sample.image[0, 0, 0].long() for sample in batch])
        return [{"scores": row} for row in nn.functional.one_hot(labels, 3).float()]


class Learner(Stage):
    """Learns the second part."""

    name = "second"

    def learns(self):
        return [self.model.two]


def stage(kind=Stage):
    return kind(Guess(), SimpleNamespace(class_names=["a", "b", "c"]), ClassificationEvaluator())


def samples(labels, said):
    """Images that say one class and are of another."""
    return [
        Sample(torch.full((3, 1, 1), value), {"label": torch.tensor(label)}, str(n), n)
        for n, (label, value) in enumerate(zip(labels, said, strict=True))
    ]


def test_only_what_is_learnt_is_free_and_in_training_mode():
    """In one place, before any strategy wraps the model; batch norm of the rest stays."""
    made = stage(Learner)
    made.model.train()
    made.configure_model()
    assert not any(p.requires_grad for p in made.model.one.parameters())
    assert all(p.requires_grad for p in made.model.two.parameters())
    assert not made.model.one.training
    assert made.model.two[1].training
    test = Stage(made.model, made.data, made.evaluator)
    test.configure_model()
    assert not any(p.requires_grad for p in made.model.parameters())


def test_a_stage_validates_by_its_evaluator(tmp_path):
    """Three of four right; the same step as in the test."""
    made = stage()
    batches = [samples([0, 1], [0, 1]), [*samples([2, 2], [2, 0])]]
    for n, sample in enumerate(s for batch in batches for s in batch):
        sample.index = n
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.validate(made, loader, verbose=False)
    assert made.figures["top1_error"] == 0.25
    assert float(trainer.callback_metrics["val/top1_accuracy"]) == 0.75
    (first, _) = trainer.predict(made, loader)
    assert [int(found["scores"].argmax()) for found in first] == [0, 1]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"world_size": 1}, r"trainer\.devices=2 and cannot go on with 1"),
        ({"accumulate_grad_batches": 3},
         r"trainer\.accumulate_grad_batches=1 and cannot go on with 3"),
    ],
)  # fmt: skip
def test_a_stage_goes_on_only_with_steps_of_the_same_size(other, message):
    """Learning rates that follow the steps would be others."""
    trainer = {"world_size": 2, "accumulate_grad_batches": 1}
    made = stage()
    made._trainer = SimpleNamespace(**trainer)
    made.on_fit_start()
    checkpoint = {}
    made.on_save_checkpoint(checkpoint)
    made.on_load_checkpoint(checkpoint)
    made._trainer = SimpleNamespace(**{**trainer, **other})
    with pytest.raises(UserError, match=f"was begun with {message}"):
        made.on_load_checkpoint(checkpoint)


def test_validation_of_classifying_stages_is_loss_and_accuracy(monkeypatch):
    made = stage()
    logged = {}
    monkeypatch.setattr(made, "log", lambda key, value, **_: logged.update({key: float(value)}))
    made.classify = lambda batch: batch
    made.validation_step((torch.tensor([[9.0, 0.0], [9.0, 0.0]]), torch.tensor([0, 1])), 0)
    assert logged["test/val_accuracy"] == 0.5
    assert abs(logged["test/val_loss"] - 4.5) < 1e-3


def test_a_loss_that_is_no_number_stops():
    made = stage()
    made._trainer = SimpleNamespace(global_step=3)
    with pytest.raises(TrainingError, match="loss of stage test is nan at step"):
        made.check_finite(torch.tensor(float("nan")), "images 1 to 3")
