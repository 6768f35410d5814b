"""A classifier learns: textures that no colour and no single pixel tells apart."""

from functools import partial
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier
from detection.classification.testing import ClassificationTest
from detection.classification.training import ClassificationStage
from detection.classification.views import CropViews, ViewSet, WholeViews
from detection.data.classification_data import ClassificationData
from detection.data.folders.class_folders import ClassFolders
from detection.runs.trainer import make_trainer
from detection.sppnet.image_features import PyramidFeatures
from detection.training.schedules import one_cycle

TRAINER = {"_target_": "pytorch_lightning.Trainer", "accelerator": "cpu", "limit_val_batches": 0}
KINDS = ("columns", "diagonals", "rows", "spots")  # each its own mirror image, as a kind
SIDE, INPUT = 72, 64


def draw(kind, generator):
    """A grating of random direction, phase and two random colours, in noise."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = generator.uniform(4, 8) * 2 * np.pi
    shift = generator.uniform(0, 2 * np.pi, 2)
    tilt = generator.choice([-1, 1])
    pattern = {
        "columns": np.sin(waves * x + shift[0]),
        "rows": np.sin(waves * y + shift[0]),
        "diagonals": np.sin(waves * (x + tilt * y) / np.sqrt(2) + shift[0]),
        "spots": np.sin(waves * x + shift[0]) * np.sin(waves * y + shift[1]),
    }[kind]
    colours = generator.uniform(0, 255, (2, 3))
    share = (pattern[:, :, None] + 1) / 2
    noise = generator.normal(0, 20, (SIDE, SIDE, 3))
    pixels = colours[0] * share + colours[1] * (1 - share) + noise
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("textures")
    for split, count in (("train", 100), ("test", 30)):
        for label, kind in enumerate(KINDS):
            (folder / split / kind).mkdir(parents=True)
            for n in range(count):
                generator = np.random.default_rng([label, n, split == "test"])
                draw(kind, generator).save(folder / split / kind / f"{n}.png")
    crops = [A.RandomCrop(INPUT, INPUT), A.HorizontalFlip(p=0.5)]
    made = ClassificationData(
        name="textures", source=Path, layout=ClassFolders, root=str(folder),
        augmentation=A.Compose(crops), crops_per_image=1, mirror_too=False, side_px=SIDE,
        val_images=1, num_workers=0, cache=str(folder / "cache"),
    )  # fmt: skip
    made.read()
    return made


def test_multi_size_training_learns_for_crops_and_whole_images(data, tmp_path):
    """SPP-net, 2.3, at 64 and 48 pixels; chance is an error of 75 %."""
    torch.manual_seed(0)
    backbone = zf5(
        weights=None, width=0.1, padding="paper", normalization="channel", input_px=INPUT,
        mean=[0.5] * 3, std=[0.25] * 3,
    )  # fmt: skip
    features = PyramidFeatures(backbone, levels=[2, 1], bins="adaptive")
    classifier = Classifier(features, len(KINDS), precision="float32")
    stage = ClassificationStage(
        classifier, data, 0, sizes_px=[INPUT, 48], alternate="epoch", batch_size=20, epochs=12,
        squares_per_part=200,
        optimizer=partial(torch.optim.AdamW, lr=1e-3), schedule=one_cycle, dropout=0.0,
        clip_norm=5.0, auxiliary_weight=0.3, max_steps=None,
    )  # fmt: skip
    make_trainer(TRAINER, {}, tmp_path, [], stage.trainer_options()).fit(stage)
    kinds = {
        "crop": CropViews(resize_px=None, crop_px=None, places=["centre"], flip=False),
        "whole": WholeViews(resize_px=None, flip=False),
    }
    for name, kind in kinds.items():
        test = ClassificationTest(classifier, data, views=ViewSet({name: kind}))
        trainer = make_trainer(TRAINER, {}, tmp_path, [], {"enable_checkpointing": False})
        trainer.test(test, verbose=False)
        assert test.figures["top1_error"] < 0.4, name
