"""Training through Lightning, as train.py does it, against a bare loop with the same batches."""

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.timing import compare
from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier
from detection.classification.training import ClassificationStage
from detection.data.classification_data import ClassificationData
from detection.data.folders.class_folders import ClassFolders
from detection.data.shapes.draw_single import draw_shapes_cls
from detection.runs.trainer import make_trainer
from detection.runtime.memory import keep_freed_memory
from detection.sppnet.image_features import PyramidFeatures
from detection.training.schedules import drops

INPUT = 112
TRAINER = {
    "_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "log_every_n_steps": 20,
    "limit_val_batches": 0,
}  # fmt: skip


def make(folder: str) -> ClassificationStage:
    torch.manual_seed(0)
    data = ClassificationData(
        name="shapes_cls",
        source=partial(draw_shapes_cls, download_to=folder, train=400, test=2, seed=0),
        layout=ClassFolders,
        root=None,
        augmentation=A.Compose([A.RandomCrop(INPUT, INPUT)]),
        crops_per_image=1,
        mirror_too=False,
        side_px=128,
        val_images=1,
        num_workers=0,
        cache=folder,
    )
    data.read()
    backbone = zf5(
        weights=None, width=0.25, padding="paper", normalization="channel", input_px=INPUT,
        mean=[0.5] * 3, std=[0.25] * 3,
    )  # fmt: skip
    features = PyramidFeatures(backbone, levels=[6, 3, 2, 1], bins="adaptive")
    classifier = Classifier(features, len(data.class_names), precision="float32")
    return ClassificationStage(
        classifier, data, 0, sizes_px=[INPUT], alternate="epoch", batch_size=64, epochs=1,
        squares_per_part=10**6,
        optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
        schedule=partial(drops, at=[0.5]), dropout=0.5, clip_norm=None,
        auxiliary_weight=0, max_steps=None,
    )  # fmt: skip


def lightning(folder: str) -> None:
    stage = make(folder)
    with tempfile.TemporaryDirectory() as run:
        options: dict[str, Any] = {**stage.trainer_options(), "enable_checkpointing": False}
        make_trainer(TRAINER, {}, Path(run), [], options).fit(stage)


def bare(folder: str) -> None:
    stage = make(folder)
    optimizer = torch.optim.SGD(stage.detector.parameters(), lr=0.01, momentum=0.9)
    stage.detector.train()
    for images, labels in stage.data.train_loader(64, 1):
        optimizer.zero_grad()
        F.cross_entropy(stage.detector(images, 0.5), labels).backward()
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
