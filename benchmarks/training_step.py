"""Training through Lightning, as train.py does it, against a bare loop with the same batches."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import torch
import torch.nn.functional as F

from benchmarks.timing import compare
from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier
from detection.classification.training import ClassificationOptions, ClassificationStage
from detection.data.classification import ClassificationAnnotations
from detection.data.examples import WholeImages
from detection.data.folders.class_folders import ClassFolders
from detection.data.module import DataModule
from detection.data.shapes.draw_single import draw_shapes_cls
from detection.evaluation.classification import ClassificationEvaluator
from detection.runs.trainer import make_trainer
from detection.runtime.memory import keep_freed_memory
from detection.sppnet.image_features import PyramidFeatures
from detection.training.schedules import step_decay

INPUT = 112
TRAINER = {
    "_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "log_every_n_steps": 20,
    "limit_val_batches": 0,
}  # fmt: skip


def make(folder: str) -> ClassificationStage:
    torch.manual_seed(0)
    data = DataModule(
        name="shapes_cls",
        task="classification",
        source=partial(draw_shapes_cls, download_to=folder, train=400, test=2, seed=0),
        layout=ClassFolders,
        annotations=ClassificationAnnotations(),
        val_images=0,
        cache=folder,
    )
    data.setup()
    backbone = zf5(
        weights=None, width=0.25, padding="paper", normalization="channel", input_px=INPUT,
        mean=[0.5] * 3, std=[0.25] * 3,
    )  # fmt: skip
    classifier = Classifier(PyramidFeatures(backbone), data.num_classes, side_px=128)
    options = ClassificationOptions(
        examples=WholeImages(A.RandomCrop), batch_size=64, epochs=1, crops_per_checkpoint=10**6,
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        schedule=partial(step_decay, at=[0.5]), auxiliary_weight=0,
    )  # fmt: skip
    return options.stage(classifier, data, ClassificationEvaluator())


def lightning(folder: str) -> None:
    stage = make(folder)
    with tempfile.TemporaryDirectory() as run:
        options: dict[str, Any] = {**stage.trainer_options(), "enable_checkpointing": False}
        make_trainer(TRAINER, {}, Path(run), [], options).fit(stage)


def bare(folder: str) -> None:
    stage = make(folder)
    optimizer = torch.optim.SGD(stage.model.parameters(), lr=0.01, momentum=0.9)
    stage.model.train()
    for images, labels in stage.examples.loader(64, 1, 0):
        optimizer.zero_grad()
        F.cross_entropy(stage.model(images, 0.5), labels).backward()
        optimizer.step()


def main() -> None:
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        lightning(folder)
        print("one epoch of 2,400 images, set-up included")
        ratio = compare(
            "Lightning", lambda: lightning(folder), "bare loop", lambda: bare(folder), runs=5
        )
        print(f"{1 / ratio - 1:.1%} slower")


if __name__ == "__main__":
    main()
