"""What an RPN sees on its way to a box: anchors, boxes before the R-CNN, and after."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from detection.combine.nms import Detections
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.localization.examples import shown_examples
from detection.report.drawing import WHITE, Outline, class_colour, draw_outlines
from detection.report.page import Gallery, Section, Shown

if TYPE_CHECKING:
    from detection.rpn.rcnn import RPNWithRCNN
    from detection.rpn.rpn import PerClassRPN

EXAMPLES = 4  # images
PICTURE_PX = 420  # longer side
BOXES = 12  # of the highest scores, in a picture


@torch.no_grad()
def rpn_sections(
    rpn: "PerClassRPN", data: DataModule, rcnn: "RPNWithRCNN | None" = None
) -> list[Section]:
    """The steps of some test images: anchors, boxes of the true class, what they come to.

    Args:
        rpn: makes boxes of anchors.
        data: with test images.
        rcnn: scores and moves them, if there is one.
    """
    device = next(rpn.parameters()).device
    examples = shown_examples(data, (rcnn or rpn).transform, device, EXAMPLES, PICTURE_PX)
    steps = {
        f"example{number}": steps_of(rpn, rcnn, *example, data.class_names)
        for number, example in enumerate(examples, 1)
    }
    title = "From anchors to boxes" + (", and what R-CNN makes of them" if rcnn else "")
    return [Gallery(title, steps)]


def steps_of(
    rpn: "PerClassRPN", rcnn: "RPNWithRCNN | None", sample: Sample, pixels: NDArray[np.uint8],
    names: list[str],
) -> list[Shown]:  # fmt: skip
    """The pictures of one image."""
    scale = pixels.shape[1] / sample.size[1]
    reading = rpn.read(sample)
    label = sample.target["label"][None].to(reading.classes.device)
    name = names[int(label)]
    candidates = reading.candidates(label)
    truth = [
        Outline(tuple(box), WHITE, dashed=True) for box in sample.target["boxes"].tolist()
    ]  # of its own label
    shown = [
        Shown(sample.image_id, draw_outlines(pixels, anchors_of(rpn, sample), scale),
              f"{sample.image_id}: the anchors of the middle cell of the last scale, and its view"),
        Shown(sample.image_id, draw_outlines(pixels, [*best_of(candidates), *truth], scale),
              f"{name}, the true class: the {BOXES} boxes of highest score; dashed the truth"),
    ]  # fmt: skip
    if rcnn is not None:
        before = rcnn.chosen(candidates, sample)
        candidates = rcnn.update(sample.image, before)
        shown.append(
            Shown(sample.image_id, draw_outlines(pixels, [*best_of(candidates), *truth], scale),
                  f"the {BOXES} boxes of highest score after the R-CNN, of {len(before['boxes'])}")
        )  # fmt: skip
    found = rpn.combine(candidates)
    final = best_of(found, 1, captions=names)
    shown.append(Shown(sample.image_id, draw_outlines(pixels, [*truth, *final], scale), "combined"))
    return shown


def anchors_of(rpn: "PerClassRPN", sample: Sample) -> list[Outline]:
    """Those of the middle cell of the last view, in the image, and the view itself."""
    frame = rpn.views.frames(sample.size)[-1]
    maps = rpn.maps(sample.views[0][-1][None])
    height, width = maps.shape[2:]
    each = rpn.anchor_boxes(maps).view(height, width, len(rpn.anchors), 4)
    boxes = frame.to_original(each[height // 2, width // 2])
    view = frame.to_original(torch.tensor([[0.0, 0.0, frame.size[1], frame.size[0]]]))
    ratios = len(rpn.anchors.ratios)
    return [
        Outline(tuple(view[0].tolist()), WHITE, dashed=True),
        *(Outline(tuple(box), class_colour(n // ratios)) for n, box in enumerate(boxes.tolist())),
    ]


def best_of(
    found: Detections, most: int = BOXES, captions: list[str] | None = None
) -> list[Outline]:
    """Its boxes of highest score, the highest on top."""
    order = found["scores"].argsort(descending=True)[:most].flip(0)
    outlines = []
    for n in order.tolist():
        label = int(found["labels"][n])
        text = f"{captions[label]} {float(found['scores'][n]):.2f}" if captions else ""
        box = tuple(found["boxes"][n].tolist())
        outlines.append(Outline(box, class_colour(label), text, line_px=2 if captions else 1))
    return outlines
