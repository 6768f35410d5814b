"""What is wrong with an annotation, told from its image: its size, and boxes that leave it."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.disk.images import image_size
from detection.errors import UserError

BadBoxes = Literal["clip", "refuse"]


def checked_objects(
    annotation: VOCAnnotation, image: Path, bad_boxes: BadBoxes, warnings: list[str]
) -> list[VOCObject]:
    """The objects with boxes inside the image; what was changed is appended to `warnings`.

    The size that the XML states is compared with the file's own; see `resized`.

    Raises:
        UserError: an annotation that only its author can mend.
    """
    if not annotation.objects:
        return []
    width, height = image_size(image)
    if (annotation.width, annotation.height) != (width, height):
        annotation = resized(annotation, width, height, warnings)
    kept = []
    for number, thing in enumerate(annotation.objects, 1):
        x1, y1, x2, y2 = thing.box
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        # One inclusive pixel (xmin = xmax) is a slip of the mouse: it counts as no area.
        no_area = inside[2] - inside[0] <= 1 or inside[3] - inside[1] <= 1
        if inside == thing.box and not no_area:
            kept.append(thing)
            continue
        wrong = "has no area" if no_area else "leaves the image"
        corners = f"({x1 + 1:g}, {y1 + 1:g}, {x2:g}, {y2:g})"
        fault = f"{annotation.path} object {number} ({thing.name}) {corners} {wrong}"
        if bad_boxes == "refuse":
            raise UserError(f"{fault}; mend it, or set data.annotations.bad_boxes=clip")
        warnings.append(f"{fault}: {'dropped' if no_area else 'clipped'}")
        if not no_area:
            kept.append(replace(thing, box=inside))
    return kept


def resized(
    annotation: VOCAnnotation, width: int, height: int, warnings: list[str]
) -> VOCAnnotation:
    """An annotation whose `<size>` is missing, or unlike its image's.

    Without a size, or with 0×0, boxes are in pixels of the image. A picture of the same shape and
    another size was scaled after it was annotated, and its boxes are scaled too.

    Raises:
        UserError: the two sizes are of different shapes, so that nobody knows what was meant.
    """
    w, h = annotation.width, annotation.height
    sizes = f"{annotation.path}: <size> is {w}×{h}, the image {width}×{height}"
    if w < 1 or h < 1:
        warnings.append(f"{sizes}: the image's counts")
        return replace(annotation, width=width, height=height)
    scale_x, scale_y = width / w, height / h
    rounded = min(abs(w * height / width - h), abs(h * width / height - w)) <= 1  # a side of <size>
    if not rounded and abs(scale_x - scale_y) * max(w, h) > 2:  # more than two pixels apart
        raise UserError(
            f"{sizes}: they are of different shapes (turned? another picture?); mend <size>, or "
            "leave it out if the boxes are in pixels of the image"
        )
    warnings.append(f"{sizes}: boxes are scaled")
    moved = []
    for thing in annotation.objects:
        x1, y1, x2, y2 = thing.box
        # multiplied first, so that the image's edge stays exact
        box = (x1 * width / w, y1 * height / h, x2 * width / w, y2 * height / h)
        moved.append(replace(thing, box=box))
    return replace(annotation, width=width, height=height, objects=moved)
