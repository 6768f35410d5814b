"""What OverFeat's localiser sees on its way to a box: figures 6 and 7 of the paper."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.localization.examples import shown_examples
from detection.report.drawing import Outline, class_colour, draw_outlines, heat
from detection.report.page import Gallery, Section, Shown

if TYPE_CHECKING:
    from detection.overfeat.localizer import OverFeatLocalizer, Seen

EXAMPLES = 3  # images of figure 6
FIGURE_7 = 6  # images
PICTURE_PX = 420  # longer side
LEAST = 0.25  # of the highest probability: boxes of less sure places are not drawn
MOST_BOXES = 40  # in a picture


@torch.no_grad()
def localizer_sections(model: "OverFeatLocalizer", data: DataModule) -> list[Section]:
    """The steps of some test images, and boxes before they are merged."""
    device = next(model.parameters()).device
    shown = shown_examples(data, model.views, device, max(EXAMPLES, FIGURE_7), PICTURE_PX)
    examples = [(sample, model.see(sample), pixels) for sample, pixels in shown]
    steps = {
        f"example{n + 1}": pipeline(model, *example, data.class_names)
        for n, example in enumerate(examples[:EXAMPLES])
    }
    unmerged = [before_merging(model, *example, data.class_names) for example in examples]
    return [
        Gallery("From places to boxes (OverFeat, figure 6)", steps),
        Gallery("Boxes before they are merged (figure 7)", {"before merging": unmerged}),
    ]


def pipeline(
    model: "OverFeatLocalizer", sample: Sample, seen: "list[Seen]", pixels: NDArray[np.uint8],
    names: list[str],
) -> list[Shown]:  # fmt: skip
    """Class map, boxes by scale, merged boxes of an image."""
    reading = model.reading(seen, sample.size)
    label = int(reading.classes[0])
    scale = pixels.shape[1] / sample.size[1]
    plain = [one for one in seen if not one.frame.mirrored]
    largest = plain[-1]
    places = largest.probabilities[:, label].view(largest.shape)
    shown = [
        Shown(
            sample.image_id, heat(pixels, places.float().cpu().numpy()),
            f"{sample.image_id}: {names[label]} at {largest.shape[0]}×{largest.shape[1]} places of "
            "the last scale",
        )
    ]  # fmt: skip
    outlines = []
    for number, one in enumerate(plain):
        outlines += outlines_of(model, one, label, sample, class_colour(number))
    caption = f"boxes of {len(plain)} scales, a colour each"
    shown.append(Shown(sample.image_id, draw_outlines(pixels, outlines, scale), caption))
    found = model.combine(reading.candidates(reading.classes))
    best = range(min(model.top_k, len(found["boxes"])))
    merged = [
        Outline(
            tuple(found["boxes"][n].tolist()), class_colour(int(found["labels"][n])),
            f"{names[int(found['labels'][n])]} {float(found['scores'][n]):.1f}",
        )
        for n in best
    ]  # fmt: skip
    drawn = draw_outlines(pixels, merged[::-1], scale)
    return [*shown, Shown(sample.image_id, drawn, "merged: the boxes of the highest sums")]


def before_merging(
    model: "OverFeatLocalizer", sample: Sample, seen: "list[Seen]", pixels: NDArray[np.uint8],
    names: list[str],
) -> Shown:  # fmt: skip
    """The boxes of one scale, of the surest class."""
    label = int(model.reading(seen, sample.size).classes[0])
    one = [s for s in seen if not s.frame.mirrored][-1]
    outlines = outlines_of(model, one, label, sample, class_colour(label))
    drawn = draw_outlines(pixels, outlines, pixels.shape[1] / sample.size[1])
    return Shown(sample.image_id, drawn, f"{sample.image_id}: {names[label]}, the last scale")


def outlines_of(
    model: "OverFeatLocalizer", seen: "Seen", label: int, sample: Sample,
    colour: tuple[int, int, int],
) -> list[Outline]:  # fmt: skip
    """The boxes of a class at the surer places of a view."""
    labels = torch.tensor([label], device=seen.hidden.device)
    found = model.boxes(seen, labels, sample.size)
    sure = found["scores"] >= LEAST * found["scores"].max()
    chosen = torch.nonzero(sure)[:, 0][:: max(1, int(sure.sum()) // MOST_BOXES)]
    return [Outline(tuple(box), colour, line_px=1) for box in found["boxes"][chosen].tolist()]
