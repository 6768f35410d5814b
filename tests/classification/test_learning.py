"""A classifier learns: textures that no colour and no single pixel tells apart."""

from functools import partial

import albumentations as A
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from conftest import fit
from PIL import Image

from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier
from detection.classification.training import ClassificationOptions
from detection.classification.views import CropViews, ViewSet, WholeViews
from detection.data.classification import ClassificationAnnotations
from detection.data.examples import WholeImages
from detection.data.folders.class_folders import ClassFolders
from detection.data.module import DataModule
from detection.evaluation.classification import ClassificationEvaluator
from detection.sppnet.image_features import PyramidFeatures
from detection.training.schedules import one_cycle
from detection.training.stage import Stage

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
    made = DataModule(
        name="textures", task="classification", layout=ClassFolders, root=str(folder),
        annotations=ClassificationAnnotations(), cache=folder / "cache",
    )  # fmt: skip
    made.setup()
    return made


def test_multi_size_training_learns_for_crops_and_whole_images(data, tmp_path):
    """SPP-net, 2.3, at 64 and 48 pixels; chance is an error of 75 %."""
    torch.manual_seed(0)
    backbone = zf5(
        weights=None, width=0.1, padding="paper", normalization="channel", input_px=INPUT,
        mean=[0.5] * 3, std=[0.25] * 3,
    )  # fmt: skip
    features = PyramidFeatures(backbone, levels=[2, 1])
    classifier = Classifier(features, len(KINDS), side_px=SIDE)
    options = ClassificationOptions(
        examples=WholeImages(A.RandomCrop, [A.HorizontalFlip(p=0.5)]), sizes_px=[INPUT, 48],
        batch_size=20, epochs=12, crops_per_checkpoint=200,
        optimizer=partial(torch.optim.AdamW, lr=1e-3), schedule=one_cycle, dropout=0.0,
        clip_norm=5.0,
    )  # fmt: skip
    evaluator = ClassificationEvaluator()
    fit(options.stage(classifier, data, evaluator), tmp_path)
    for kind in (CropViews(), WholeViews()):
        classifier.views = ViewSet({"one": kind})
        classifier.views.bind(SIDE, backbone)
        classifier.prepare(data)
        test = Stage(classifier, data, evaluator)
        trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
        trainer.test(test, datamodule=data, verbose=False)
        assert test.figures["top1_error"] < 0.4, kind
