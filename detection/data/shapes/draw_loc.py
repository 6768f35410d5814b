"""Draws a data set for localisation: some objects of one class an image, and smaller clutter."""

from pathlib import Path

import numpy as np

from detection.data.shapes.draw import (
    Drawn,
    ShapesOptions,
    add_object,
    as_object,
    developed,
    draw_images,
    drawn_once,
)
from detection.data.shapes.outlines import CLASSES
from detection.data.shapes.textures import Pixels, background
from detection.data.voc.annotation import VOCObject

OBJECTS = ShapesOptions(min_side_px=170, max_side_px=250, min_object=0.3, max_object=0.7)
CLUTTER = ShapesOptions(min_side_px=170, max_side_px=250, min_object=0.12, max_object=0.22)
MAX_OBJECTS, MAX_CLUTTER = 2, 2


def draw_shapes_loc(
    root: str | None, download_to: str, train: int, val: int, test: int, seed: int
) -> Path:
    """The folder of a drawn data set in VOC's layout, drawn on first use; see `draw_shapes`.

    An image shows one or two objects of its class, and up to two smaller things, each of another
    class, so that the class is the most frequent, or the largest of equals.

    Args:
        root: a folder that was drawn before; None draws below `download_to`.
        download_to: where data sets are kept.
        train: images to train on.
        val: images to validate on.
        test: images to test on.
        seed: of everything.
    """
    if root is not None:
        return Path(root)
    counts = {"train": train, "val": val, "test": test}
    options = (*counts.values(), seed, OBJECTS, CLUTTER, MAX_OBJECTS, MAX_CLUTTER)

    def draw(number: int) -> tuple[Pixels, list[VOCObject]]:
        return draw_one(np.random.default_rng([seed, number]))

    return drawn_once(
        Path(download_to), "shapes_loc", options, lambda part: draw_images(part, counts, draw)
    )


def draw_one(generator: np.random.Generator) -> tuple[Pixels, list[VOCObject]]:
    """One image, (H, W, 3) RGB, and its objects: its class's first."""
    low, high = OBJECTS.min_side_px, OBJECTS.max_side_px
    height, width = (int(side) for side in generator.integers(low, high + 1, size=2))
    names = [str(name) for name in generator.permutation(CLASSES)]
    canvas = background(generator, height, width)
    drawn: list[Drawn] = []
    for name in names[1 : 1 + int(generator.integers(MAX_CLUTTER + 1))]:
        add_object(canvas, drawn, generator, CLUTTER, name)
    clutter = len(drawn)
    for _ in range(int(generator.integers(1, MAX_OBJECTS + 1))):
        add_object(canvas, drawn, generator, OBJECTS, names[0])
    while len(drawn) == clutter:  # nothing found room
        add_object(canvas, drawn, generator, OBJECTS, names[0])
    things = [as_object(thing) for thing in [*drawn[clutter:], *drawn[:clutter]]]
    return developed(canvas, generator), things
