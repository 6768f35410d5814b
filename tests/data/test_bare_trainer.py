"""A data module is Lightning's: it works with a bare `Trainer` and any module."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from conftest import find_proposals

from detection.data.detection import DetectionAnnotations
from detection.data.module import DataModule
from detection.data.voc.folder import VOCFolder
from detection.errors import UserError
from detection.evaluation.detection import DetectionEvaluator
from detection.proposals.selective_search import SelectiveSearch
from detection.training.model import Model
from detection.training.stage import Stage

QUIET = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False,
         "enable_checkpointing": False, "enable_model_summary": False}  # fmt: skip


class MeanColour(pl.LightningModule):
    """Someone's own module: it knows nothing of this package but `Sample`."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = {"fit": [], "test": []}

    def training_step(self, batch, batch_idx):
        self.seen["fit"] += [sample.image_id for sample in batch]
        return torch.stack([s.image.float().mean() * self.scale for s in batch]).mean()

    def test_step(self, batch, batch_idx):
        self.seen["test"] += [sample.image_id for sample in batch]

    def predict_step(self, batch, batch_idx):
        return [(sample.image_id, len(sample.target["boxes"])) for sample in batch]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-6)


def module(folder, cache):
    return DataModule(
        name="shapes", task="detection", layout=VOCFolder, annotations=DetectionAnnotations(),
        root=str(folder), cache=cache,
    )  # fmt: skip


def test_fit_test_and_predict(shapes_folder, tmp_path):
    data, own = module(shapes_folder, tmp_path), MeanColour()
    trainer = pl.Trainer(max_epochs=1, **QUIET)
    trainer.fit(own, datamodule=data)
    assert sorted(own.seen["fit"]) == data.splits["train"].image_ids
    assert "test" not in data.splits  # nothing is read before it is needed
    trainer.test(own, datamodule=data, verbose=False)
    assert own.seen["test"] == data.splits["test"].image_ids
    predicted = [row for batch in trainer.predict(own, datamodule=data) for row in batch]
    assert [image_id for image_id, _ in predicted] == data.splits["test"].image_ids


class Proposals(Model):
    """Takes each proposal for an object of class 0; a real model by its contract alone."""

    num_classes = 6

    def prepare(self, data):
        super().prepare(data)
        find_proposals(data, SelectiveSearch())

    def predict(self, batch):
        return [
            {
                "boxes": s.proposals[:20],
                "scores": torch.linspace(1, 0, len(s.proposals[:20])),
                "labels": torch.zeros(len(s.proposals[:20]), dtype=torch.long),
            }
            for s in batch
        ]


def test_a_stage_measures_any_model_by_its_contract(shapes_folder, tmp_path):
    data, model = module(shapes_folder, tmp_path), Proposals()
    data.setup()
    model.prepare(data)
    stage = Stage(model, data, DetectionEvaluator())
    trainer = pl.Trainer(**QUIET)
    trainer.test(stage, datamodule=data, verbose=False)
    assert 0 <= stage.figures["map"] < 0.2
    assert stage.result.about_data["proposals/recall_0.5"] > 0.9
    assert len(stage.result.predictions.image_ids) == 10
    trainer.validate(stage, datamodule=data, verbose=False)
    assert stage.figures.keys() >= {"map", "ap/cross"}
    found = trainer.predict(stage, datamodule=data)
    assert len(found) == 10


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("limit", 0, 1), ("limit", -3, 1), ("val_images", -1, 0), ("threads", 0, 1),
     ("num_workers", -1, 0)],
)  # fmt: skip
def test_numbers_that_cannot_be(option, value, least):
    with pytest.raises(UserError, match=rf"data\.{option}={value}: it is a number from {least}"):
        DataModule(name="a", task="detection", layout=Path, annotations=None, **{option: value})
