"""Textures and cluttered backgrounds for drawn images, float32 (H, W, 3) in 0 to 255."""

import cv2
import numpy as np
from numpy.typing import NDArray

Canvas = NDArray[np.float32]
Pixels = NDArray[np.uint8]

MIN_COLOUR_DISTANCE = 80.0  # between an object and what it is painted on, largest channel


def background(generator: np.random.Generator, height: int, width: int) -> Canvas:
    """A texture with patches, lines, arcs and blots on it, none of them an object."""
    canvas = texture(generator, height, width)
    for _ in range(int(generator.integers(1, 4))):
        add_patch(canvas, generator)
    for _ in range(int(generator.integers(2, 8))):
        add_stroke(canvas, generator)
    return canvas


def texture(
    generator: np.random.Generator,
    height: int,
    width: int,
    away_from: NDArray[np.float32] | None = None,
) -> Canvas:
    """A colour that varies: smooth clouds, stripes or checks over it.

    Args:
        generator: of everything.
        height: in pixels.
        width: in pixels.
        away_from: (3,) a colour to differ from in at least one channel.
    """
    colour = generator.uniform(20, 235, 3)
    while away_from is not None and np.abs(colour - away_from).max() < MIN_COLOUR_DISTANCE:
        colour = generator.uniform(20, 235, 3)
    canvas = colour + clouds(generator, height, width) * generator.uniform(3, 14)
    kind = generator.random()
    if kind < 0.6:
        canvas += pattern(generator, height, width, checks=kind < 0.25)
    return np.clip(canvas, 0, 255).astype(np.float32)


def clouds(generator: np.random.Generator, height: int, width: int) -> Canvas:
    """Smooth noise of unit size: coarse grids of random numbers, enlarged and added."""
    total = np.zeros((height, width, 3), np.float32)
    for cells, weight in ((3, 1.0), (8, 0.6), (24, 0.4)):
        grid = generator.normal(0, weight, (cells, cells, 3)).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
    return total


def pattern(generator: np.random.Generator, height: int, width: int, checks: bool) -> Canvas:
    """Stripes or checks at a random angle."""
    angle, period = generator.uniform(0, np.pi), generator.uniform(5, 24)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along = np.sin(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period)
    if checks:
        along = along * np.sin(2 * np.pi * (x * np.sin(angle) - y * np.cos(angle)) / period)
    strength = generator.uniform(4, 16) * generator.uniform(0.3, 1, 3)
    return np.asarray(np.sign(along)[:, :, None] * strength, np.float32)


def add_patch(canvas: Canvas, generator: np.random.Generator) -> None:
    """Repaint what lies on one side of a wavy line: a region without the outline of a class."""
    height, width = canvas.shape[:2]
    angle = generator.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = x - generator.uniform(0, width), y - generator.uniform(0, height)
    across = x * np.cos(angle) + y * np.sin(angle)
    along = y * np.cos(angle) - x * np.sin(angle)
    wave = generator.uniform(3, 14) * np.sin(along / generator.uniform(8, 30))
    side = across > wave + generator.uniform(20, 90)
    canvas[side] = texture(generator, height, width)[side]


def add_stroke(canvas: Canvas, generator: np.random.Generator) -> None:
    """A line, an open arc or a blot in some colour."""
    height, width = canvas.shape[:2]
    colour = tuple(float(c) for c in generator.uniform(0, 255, 3))
    start = tuple(int(v) for v in generator.uniform([0, 0], [width, height]))
    kind = generator.random()
    thickness = int(generator.integers(1, 5))
    if kind < 0.5:
        end = tuple(int(v) for v in generator.uniform([0, 0], [width, height]))
        cv2.line(canvas, start, end, colour, thickness, cv2.LINE_AA)
    elif kind < 0.8:
        axes = tuple(int(v) for v in generator.uniform(8, 60, 2))
        first = generator.uniform(0, 360)
        cv2.ellipse(
            canvas,
            start,
            axes,
            generator.uniform(0, 180),
            first,
            first + generator.uniform(60, 200),
            colour,
            thickness,
            cv2.LINE_AA,
        )
    else:
        cv2.circle(canvas, start, int(generator.integers(2, 7)), colour, -1, cv2.LINE_AA)
