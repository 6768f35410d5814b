"""Draws a data set for classification: one shape an image, a folder for each class."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from detection.data.shapes.draw import Drawn, ShapesOptions, add_object, developed, drawn_once
from detection.data.shapes.outlines import CLASSES
from detection.data.shapes.textures import Pixels, background
from detection.runtime.progress import progress

OPTIONS = ShapesOptions(min_side_px=110, max_side_px=140, min_object=0.45, max_object=0.8)


def draw_shapes_cls(
    root: str | None, download_to: str, train: int, test: int, seed: int, val: int = 0
) -> Path:
    """The folder of a drawn data set, drawn on first use; see `draw_shapes`.

    Args:
        root: a folder that was drawn before; None draws below `download_to`.
        download_to: where data sets are kept.
        train: images a class to train on.
        test: images a class to test on.
        seed: of everything.
        val: images a class to validate on.
    """
    if root is not None:
        return Path(root)
    counts = {"train": train, "test": test, "val": val}
    options = (*counts.values(), seed, OPTIONS)
    return drawn_once(
        Path(download_to), "shapes_cls", options, lambda part: draw_all(part, counts, seed)
    )


def draw_all(folder: Path, counts: Mapping[str, int], seed: int) -> None:
    """Draw every image of every class."""
    splits = [split for split, count in counts.items() for _ in range(count)]
    with progress("drawing shapes", len(CLASSES) * len(splits)) as advance:
        for label, name in enumerate(CLASSES):
            for number, split in enumerate(splits):
                target = folder / split / name
                target.mkdir(parents=True, exist_ok=True)
                pixels = draw_one(name, np.random.default_rng([seed, label, number]))
                path = target / f"{number:05d}.jpg"
                cv2.imwrite(str(path), pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
                advance(1)


def draw_one(name: str, generator: np.random.Generator) -> Pixels:
    """An image, (H, W, 3) RGB, of one whole object."""
    low, high = OPTIONS.min_side_px, OPTIONS.max_side_px
    height, width = (int(side) for side in generator.integers(low, high + 1, size=2))
    scene = background(generator, height, width)
    while True:
        canvas = scene.copy()
        drawn: list[Drawn] = []
        add_object(canvas, drawn, generator, OPTIONS, name)
        if drawn and not drawn[0].whole_box_cut:
            return developed(canvas, generator)
