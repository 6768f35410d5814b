"""What is wrong with an annotation, told from its image: size, turn, boxes that leave it."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.disk.images import image_size, stored_box, turn_of
from detection.errors import UserError

BadBoxes = Literal["clip", "refuse"]


@dataclass(frozen=True)
class Checked:
    """Objects whose boxes lie inside their image.

    Attributes:
        objects: with boxes in pixels of the image as it is stored.
        dropped: whether an object is not among them, for its box has no area.
    """

    objects: list[VOCObject]
    dropped: bool


def checked_objects(
    annotation: VOCAnnotation, image: Path, bad_boxes: BadBoxes, warnings: list[str]
) -> Checked:
    """The objects with boxes inside the image; what was changed is appended to `warnings`.

    The picture is asked, not its annotation alone: see `as_stored`.

    Raises:
        UserError: an annotation that only its author can mend.
    """
    if not annotation.objects:
        return Checked([], dropped=False)
    check_pixels(annotation)
    width, height = image_size(image)
    annotation = as_stored(annotation, image, (width, height), warnings)
    kept = []
    for number, thing in enumerate(annotation.objects, 1):
        where = f"{annotation.path} object {number} ({thing.name})"
        x1, y1, x2, y2 = box = exchanged(thing.box)
        if box != thing.box:
            warnings.append(f"{where} {corners(thing.box)}: corners are exchanged")
        inside = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
        # One inclusive pixel (xmin = xmax) is a slip of the mouse: it counts as no area.
        no_area = inside[2] - inside[0] <= 1 or inside[3] - inside[1] <= 1
        if inside == box and not no_area:
            kept.append(replace(thing, box=box))
            continue
        wrong = "has no area" if no_area else "leaves the image"
        fault = f"{where} {corners(box)} {wrong}"
        if bad_boxes == "refuse":
            raise UserError(f"{fault}; mend it, or set data.annotations.bad_boxes=clip")
        warnings.append(f"{fault}: {'dropped' if no_area else 'clipped'}")
        if not no_area:
            kept.append(replace(thing, box=inside))
    twice = len(kept) - len({(thing.name, thing.box) for thing in kept})
    if twice:  # the devkits count both, too
        warnings.append(f"{annotation.path}: {twice} objects are annotated twice: counted twice")
    return Checked(kept, len(kept) < len(annotation.objects))


def check_pixels(annotation: VOCAnnotation) -> None:
    """Check that boxes are in pixels.

    Raises:
        UserError: all are between 0 and 1.
    """
    ends = [end for thing in annotation.objects for end in thing.box[2:]]
    if max(ends) <= 1 and min(ends) > 0 and not all(end.is_integer() for end in ends):
        raise UserError(
            f"{annotation.path}: all boxes lie between 0 and 1, which are shares of the sides and "
            "no pixels: multiply them by <size>, or see data=yolo"
        )


def exchanged(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    """A box whose first corner is the lower one; of VOC's, whose last pixel belongs to it.

    >>> exchanged((99, 10, 31, 20))  # xmin 100, xmax 31
    (30, 10, 100, 20)
    """
    x1, y1, x2, y2 = box
    if x1 > x2:
        x1, x2 = x2 - 1, x1 + 1
    if y1 > y2:
        y1, y2 = y2 - 1, y1 + 1
    return x1, y1, x2, y2


def corners(box: tuple[float, float, float, float]) -> str:
    """A box as its file has it."""
    x1, y1, x2, y2 = box
    return f"({x1 + 1:g}, {y1 + 1:g}, {x2:g}, {y2:g})"


def as_stored(
    annotation: VOCAnnotation, image: Path, size: tuple[int, int], warnings: list[str]
) -> VOCAnnotation:
    """An annotation in pixels of its image as it is stored, whatever `<size>` says.

    Without a size, or with 0×0, boxes are in pixels of the image. A photograph that viewers turn
    (EXIF) and whose `<size>` is that of the turned one was annotated as it is shown: its boxes are
    turned back. Sides are exchanged where boxes lie inside the image alone. A picture of the same
    shape and another size was scaled after it was annotated: so are its boxes.

    Raises:
        UserError: the two sizes are of different shapes, so that nobody knows what was meant.
    """
    turn, (width, height) = turn_of(image), size
    w, h = annotation.width, annotation.height
    sizes = f"{annotation.path}: <size> is {w}×{h}, the image {width}×{height}"
    if w < 1 or h < 1:
        warnings.append(f"{sizes}: the image's counts")
        return replace(annotation, width=width, height=height)
    as_it_is, as_turned = same_shape((w, h), size), same_shape((h, w), size)
    if turn != (0, False) and (turn[0] % 2 == 0 or as_it_is == as_turned):  # nobody knows
        warnings.append(f"{sizes}, which viewers turn (EXIF): boxes count as of what is stored")
    elif turn != (0, False) and as_turned:
        warnings.append(f"{sizes}, which viewers turn (EXIF): so are the boxes")
        turned = [replace(o, box=stored_box(o.box, turn, (h, w))) for o in annotation.objects]
        annotation, w, h = replace(annotation, width=h, height=w, objects=turned), h, w
    if (w, h) == size:
        return annotation
    if (h, w) == size and fit(annotation, size) and not fit(annotation, (w, h)):
        warnings.append(f"{sizes}: its sides are exchanged")
        return replace(annotation, width=width, height=height)
    if not same_shape((w, h), size):
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


def fit(annotation: VOCAnnotation, size: tuple[int, int]) -> bool:
    """Whether all boxes lie inside a picture of this width and height."""
    return all(o.box[2] <= size[0] and o.box[3] <= size[1] for o in annotation.objects)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes differ in scale alone, to the pixels that rounding leaves.

    >>> same_shape((320, 240), (160, 120)), same_shape((500, 333), (250, 166))
    (True, True)
    >>> same_shape((120, 160), (160, 120))
    False
    """
    (w, h), (width, height) = one, other
    if min(abs(w * height / width - h), abs(h * width / height - w)) <= 1:  # a side of the first
        return True
    return abs(width / w - height / h) * max(w, h) <= 2  # no more than two pixels apart
