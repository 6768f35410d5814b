"""Boxes and their captions on a picture."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE = (255, 255, 255)
LINE_PX = 2
SMALL = 0.36  # size of a caption in a picture of 420 pixels
LETTERS = 24  # of a class's name in a caption
GOLDEN = 0.618  # of the circle of colours, from one class to the next: neighbours differ most

Colour = tuple[int, int, int]


def class_colour(label: int) -> Colour:
    """A colour of its own for a class, dark enough for white letters."""
    red, green, blue = colorsys.hsv_to_rgb((0.6 + label * GOLDEN) % 1, 0.75, 0.8)
    return round(255 * red), round(255 * green), round(255 * blue)


@dataclass(frozen=True)
class Outline:
    """A rectangle to draw: half-open xyxy, colour, caption ("" for none), dashed or whole, line."""

    box: tuple[float, ...]
    colour: Colour
    caption: str = ""
    dashed: bool = False
    line_px: int = LINE_PX


def draw_outlines(
    pixels: NDArray[np.uint8], outlines: Sequence[Outline], scale: float = 1.0
) -> NDArray[np.uint8]:
    """A copy of an (H, W, 3) image with rectangles, the last on top.

    Args:
        pixels: of the picture.
        outlines: in pixels of the original.
        scale: of the picture against the original.
    """
    canvas = pixels.copy()
    for outline in outlines:
        draw_outline(canvas, outline, scale)
    return canvas


def draw_outline(canvas: NDArray[np.uint8], outline: Outline, scale: float) -> None:
    """A rectangle with its caption on a ground of its colour."""
    x1, y1, x2, y2 = (round(v * scale) for v in outline.box)
    if outline.dashed:
        for a, b in dashes(x1, y1, x2, y2):
            cv2.line(canvas, a, b, outline.colour, outline.line_px, cv2.LINE_AA)
    else:
        cv2.rectangle(canvas, (x1, y1), (x2, y2), outline.colour, outline.line_px, cv2.LINE_AA)
    if outline.caption:
        draw_caption(canvas, (x1, y1), outline.caption, outline.colour)


def dashes(
    x1: int, y1: int, x2: int, y2: int, length: int = 7
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Short lines along the sides of a rectangle."""
    lines = []
    for x in range(x1, x2, 2 * length):
        end = min(x + length, x2)
        lines += [((x, y1), (end, y1)), ((x, y2), (end, y2))]
    for y in range(y1, y2, 2 * length):
        end = min(y + length, y2)
        lines += [((x1, y), (x1, end)), ((x2, y), (x2, end))]
    return lines


def draw_caption(
    canvas: NDArray[np.uint8], corner: tuple[int, int], text: str, colour: Colour,
    size: float = SMALL,
) -> None:  # fmt: skip
    """Letters on a ground of a colour, above a box's corner as far as there is room."""
    thickness = max(1, round(size))
    (width, height), _ = cv2.getTextSize(text, FONT, size, thickness)
    left = min(max(corner[0], 0), max(canvas.shape[1] - width - 4, 0))
    top = max(corner[1] - height - 4, 0)
    cv2.rectangle(canvas, (left, top), (left + width + 4, top + height + 4), colour, -1)
    place = (left + 2, top + height + 1)
    cv2.putText(canvas, text, place, FONT, size, WHITE, thickness, cv2.LINE_AA)


def drawable(name: str, label: int) -> str:
    """A class's name in letters that can be drawn; its number, from 1, where it has others.

    >>> drawable("cat", 0), drawable("猫", 1), drawable("n" * 300, 2)
    ('cat', '[2]', 'nnnnnnnnnnnnnnnnnnnnnnnn')
    """
    return name[:LETTERS] if name.isascii() and name.isprintable() else f"[{label + 1}]"


def numbered(names: Sequence[str]) -> str:
    """What the numbers in pictures stand for; nothing where there are none."""
    listed = [f"[{n + 1}] {name}" for n, name in enumerate(names)
              if drawable(name, n) == f"[{n + 1}]" != name]  # fmt: skip
    return f" In pictures {', '.join(listed)}." if listed else ""


def draw_detections(
    pixels: NDArray[np.uint8],
    boxes: NDArray[np.float32],
    labels: Sequence[int],
    captions: Sequence[str],
) -> NDArray[np.uint8]:
    """A copy of an (H, W, 3) image with boxes (K, 4), lines and letters as large as it needs.

    The first, which is the best, lies on top.
    """
    canvas = pixels.copy()
    unit = max(1.0, max(canvas.shape[:2]) / 640)
    for box, label, caption in reversed(list(zip(boxes, labels, captions, strict=True))):
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        colour = class_colour(label)
        cv2.rectangle(canvas, (x1, y1), (x2 - 1, y2 - 1), colour, round(2 * unit), cv2.LINE_AA)
        draw_caption(canvas, (x1, y1), caption, colour, 0.45 * unit)
    return canvas


def fitted(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """An image whose longer side is at most so long."""
    longer = max(pixels.shape[:2])
    if longer <= side_px:
        return pixels
    size = [max(1, round(side * side_px / longer)) for side in (pixels.shape[1], pixels.shape[0])]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def heat(pixels: NDArray[np.uint8], values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """An image with values in [0, 1] at some places over it, red where they are high."""
    grid = np.round(255 * values).astype(np.uint8)
    size = (pixels.shape[1], pixels.shape[0])
    grown = cv2.resize(grid, size, interpolation=cv2.INTER_NEAREST)
    coloured = cv2.applyColorMap(np.asarray(grown, np.uint8), cv2.COLORMAP_JET)[:, :, ::-1]
    return np.asarray(
        cv2.addWeighted(pixels, 0.5, np.ascontiguousarray(coloured), 0.5, 0), np.uint8
    )
