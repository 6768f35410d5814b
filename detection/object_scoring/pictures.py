"""What object scoring sees on its way to a box: a map of scores for each size of squares."""

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.localization.examples import shown_examples
from detection.report.drawing import WHITE, Outline, class_colour, draw_outlines, heat
from detection.report.page import Gallery, Section, Shown

if TYPE_CHECKING:
    from detection.object_scoring.localizer import ObjectScoring

EXAMPLES = 4  # images
PICTURE_PX = 320  # longer side


@torch.no_grad()
def score_sections(model: "ObjectScoring", data: DataModule) -> list[Section]:
    """The score pyramids of some test images, for the true class, and the box."""
    device = next(model.parameters()).device
    examples = shown_examples(data, model.views, device, EXAMPLES, PICTURE_PX)
    steps = {
        f"example{number}": pyramid(model, *example, data.class_names)
        for number, example in enumerate(examples, 1)
    }
    return [Gallery("From scores to boxes: squares of 1 to n cells a side", steps)]


def pyramid(
    model: "ObjectScoring", sample: Sample, pixels: NDArray[np.uint8], names: list[str]
) -> list[Shown]:
    """The image under the scores of each size of squares; then the box, beside the truth."""
    label = sample.target["label"]
    scores = model.square_scores(sample)[:, int(label)]
    low, high = float(scores.min()), float(scores.max())
    shades = ((scores - low) / max(high - low, 1e-6)).cpu()
    sides, n = model.grid.sides().long(), model.grid.cells
    shown = []
    for side in range(1, n + 1):
        mine = shades[sides == side].view(n - side + 1, n - side + 1)
        values = cells_of(mine, side)
        at = framed_heat(pixels, values, model.grid.rectangle(sample.size), sample.size)
        text = f"squares of {side}×{side} cells: {float(scores[sides == side].max()):.1f} at most"
        if side == 1:
            text = f"{sample.image_id}: {names[int(label)]}, the true class; {text}"
        shown.append(Shown(sample.image_id, at, text))
    box = model.boxes(scores[None], label[None].to(scores.device), sample.size)[0]
    outlines = [Outline(tuple(b), WHITE, dashed=True) for b in sample.target["boxes"].tolist()]
    outlines.append(Outline(tuple(box.tolist()), class_colour(int(label)), names[int(label)]))
    drawn = draw_outlines(pixels, outlines, pixels.shape[1] / sample.size[1])
    return [*shown, Shown(sample.image_id, drawn, "the regressor's box; dashed the truth")]


def cells_of(values: Tensor, side: int) -> Tensor:
    """(n, n) of each cell the mean of the squares (m, m) of some cells a side that hold it."""
    spread = torch.nn.functional.pad(values, [side - 1] * 4)
    ones = torch.nn.functional.pad(torch.ones_like(values), [side - 1] * 4)
    sums, counts = (v.unfold(0, side, 1).unfold(1, side, 1).sum(dim=(2, 3)) for v in (spread, ones))
    return sums / counts


def framed_heat(
    pixels: NDArray[np.uint8], values: Tensor, rectangle: Tensor, size: tuple[int, int]
) -> NDArray[np.uint8]:
    """A picture with values (n, n) in [0, 1] over the part of it that the grid covers.

    Args:
        pixels: of the picture.
        values: of the cells.
        rectangle: (4,) that they cover, in pixels of the original; it may leave it.
        size: height and width of the original.
    """
    scale = pixels.shape[1] / size[1]
    x1, y1, x2, y2 = (rectangle * scale).round().long().tolist()
    height, width = pixels.shape[:2]
    grid = values.numpy().astype(np.float32)
    grown = cv2.resize(grid, (max(1, x2 - x1), max(1, y2 - y1)), interpolation=cv2.INTER_NEAREST)
    left, top = max(x1, 0), max(y1, 0)
    right, bottom = min(x2, width), min(y2, height)
    result = pixels.copy()
    if right <= left or bottom <= top:  # of a strip that the grid hardly covers
        return result
    part = np.asarray(grown[top - y1 : bottom - y1, left - x1 : right - x1], np.float32)
    result[top:bottom, left:right] = heat(pixels[top:bottom, left:right], part)
    return result
