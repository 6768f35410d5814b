"""Draws a data set: shapes on cluttered, textured backgrounds, in PASCAL VOC's layout."""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.data.shapes.outlines import CLASSES, outline
from detection.data.shapes.textures import Pixels, background, texture
from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.data.voc.writer import annotation_xml, write_lists
from detection.disk.files import clean_parts, part_of
from detection.disk.locks import locked
from detection.runtime.progress import progress

Mask = NDArray[np.bool_]
Draw = Callable[[int], tuple[Pixels, list[VOCObject]]]

MIN_VISIBLE = 0.25  # an object that others hide further is not drawn at all
DIFFICULT_VISIBLE = 0.45  # below this it is marked difficult
DIFFICULT_CONTRAST = 28.0  # grey levels between an object and what is around it


@dataclass(frozen=True)
class ShapesOptions:
    """What is drawn.

    Attributes:
        train, val, test: images in each split.
        seed: of everything.
        min_side_px, max_side_px: limits of an image's sides.
        max_objects: an image holds 0 to this many.
        min_object, max_object: limits of an object's size, as a share of the shorter side.
    """

    train: int = 300
    val: int = 50
    test: int = 150
    seed: int = 0
    min_side_px: int = 170
    max_side_px: int = 250
    max_objects: int = 5
    min_object: float = 0.25
    max_object: float = 0.6


@dataclass
class Drawn:
    """One object on the canvas: its whole mask, also outside the image, and what is visible."""

    name: str
    whole_area: float
    visible: Mask
    whole_box_cut: bool
    contrast: float


def draw_shapes(root: str | None, download_to: str, **options: int | float) -> Path:
    """The folder of a drawn data set, drawn on first use.

    The same options give the same images.

    Args:
        root: a folder that was drawn before; None draws below `download_to`.
        download_to: where data sets are kept.
        options: fields of `ShapesOptions`.
    """
    if root is not None:
        return Path(root)
    chosen = ShapesOptions(**options)  # type: ignore[arg-type]
    return drawn_once(Path(download_to), "shapes", chosen, lambda part: draw_all(part, chosen))


def drawn_once(parent: Path, name: str, options: object, draw: Callable[[Path], None]) -> Path:
    """A folder named by what is drawn and a hash of its options; there only when it is complete.

    Args:
        parent: of the folder.
        name: of what is drawn.
        options: whose `repr` tells all that the drawing depends on.
        draw: called with the folder to fill.
    """
    digest = hashlib.sha256(repr(options).encode()).hexdigest()[:10]
    folder = parent / f"{name}-{digest}"
    if not folder.is_dir():
        parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.with_name(f".{folder.name}.lock")):  # of several runs one draws
            clean_parts(parent)
            if not folder.is_dir():
                unfinished = part_of(folder)
                shutil.rmtree(unfinished, ignore_errors=True)
                draw(unfinished)
                unfinished.rename(folder)
    return folder


def draw_all(folder: Path, options: ShapesOptions) -> None:
    """Write images, annotations and lists."""
    counts = {split: asdict(options)[split] for split in ("train", "val", "test")}
    draw_images(
        folder, counts,
        lambda number: draw_image(np.random.default_rng([options.seed, number]), options),
    )  # fmt: skip


def draw_images(folder: Path, counts: Mapping[str, int], draw: Draw) -> None:
    """Write images, annotations and lists in VOC's layout.

    Args:
        folder: of the data set.
        counts: images of "train", "val" and "test".
        draw: from an image's number to its pixels (H, W, 3) and objects.
    """
    for name in ("JPEGImages", "Annotations"):
        (folder / name).mkdir(parents=True)
    total = sum(counts.values())
    ids = [f"{n:06d}" for n in range(1, total + 1)]
    with progress("drawing shapes", total) as advance:
        for number, image_id in enumerate(ids):
            pixels, objects = draw(number)
            height, width = pixels.shape[:2]
            path = folder / "JPEGImages" / f"{image_id}.jpg"
            cv2.imwrite(str(path), pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
            xml = folder / "Annotations" / f"{image_id}.xml"
            annotation = VOCAnnotation(xml, path.name, width, height, objects)
            xml.write_bytes(annotation_xml(annotation))
            advance(1)
    ends = np.cumsum([0, *counts.values()])
    lists = {s: ids[a:b] for s, a, b in zip(counts, ends, ends[1:], strict=False)}
    write_lists(folder, {split: some for split, some in lists.items() if some})


def draw_image(
    generator: np.random.Generator, options: ShapesOptions
) -> tuple[Pixels, list[VOCObject]]:
    """One image, (H, W, 3) RGB, and its objects."""
    low, high = options.min_side_px, options.max_side_px
    height, width = (int(side) for side in generator.integers(low, high + 1, size=2))
    canvas = background(generator, height, width)
    drawn: list[Drawn] = []
    for _ in range(
        int(generator.integers(0 if generator.random() < 0.1 else 1, options.max_objects + 1))
    ):
        add_object(canvas, drawn, generator, options)
    return developed(canvas, generator), [as_object(thing) for thing in drawn]


def developed(canvas: NDArray[np.float32], generator: np.random.Generator) -> Pixels:
    """A canvas with a lens's blur and a sensor's noise, (H, W, 3) uint8."""
    noise = generator.normal(0, generator.uniform(1, 6), canvas.shape)
    blurred = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(0.3, 0.8))
    return np.clip(blurred + noise, 0, 255).astype(np.uint8)


def add_object(
    canvas: NDArray[np.float32],
    drawn: list[Drawn],
    generator: np.random.Generator,
    options: ShapesOptions,
    name: str | None = None,
) -> None:
    """Paint one more object (None: of any class), unless it would almost hide another one."""
    height, width = canvas.shape[:2]
    name = name or CLASSES[int(generator.integers(len(CLASSES)))]
    size = generator.uniform(options.min_object, options.max_object) * min(height, width)
    centre = generator.uniform([0.1 * width, 0.1 * height], [0.9 * width, 0.9 * height])
    rings = [ring + centre for ring in outline(name, size, generator)]
    mask = fill(rings, height, width)
    x_low, y_low = np.concatenate(rings).min(axis=0)
    x_high, y_high = np.concatenate(rings).max(axis=0)
    whole_area = polygon_area(rings)
    if mask.sum() < MIN_VISIBLE * whole_area:
        return
    left = [thing.visible & ~mask for thing in drawn]
    if any(v.sum() < MIN_VISIBLE * t.whole_area for v, t in zip(left, drawn, strict=True)):
        return
    paint = texture(generator, height, width, away_from=canvas[mask].mean(axis=0))
    around = cv2.dilate(mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~mask
    surrounding = canvas[around].mean(axis=0) if around.any() else canvas.mean(axis=(0, 1))
    contrast = float(np.abs(paint[mask].mean(axis=0) - surrounding).max())
    canvas[mask] = paint[mask]
    for thing, visible in zip(drawn, left, strict=True):
        thing.visible = visible
    cut = bool(x_low < 0 or y_low < 0 or x_high > width or y_high > height)
    drawn.append(Drawn(name, whole_area, mask, cut, contrast))


def fill(rings: list[NDArray[np.float64]], height: int, width: int) -> Mask:
    """Pixels inside some closed curves; a curve inside another is a hole."""
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.round(ring * 16).astype(np.int32) for ring in rings], 1, shift=4)
    return mask.astype(bool)


def polygon_area(rings: list[NDArray[np.float64]]) -> float:
    """Area between an outer curve and its holes (the shoelace formula)."""
    areas = []
    for ring in rings:
        x, y = ring.T
        areas.append(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
    return float(areas[0] - sum(areas[1:]))


def as_object(thing: Drawn) -> VOCObject:
    """The annotation of what is visible of an object."""
    ys, xs = np.nonzero(thing.visible)
    share = thing.visible.sum() / thing.whole_area
    return VOCObject(
        thing.name,
        (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)),
        difficult=bool(share < DIFFICULT_VISIBLE or thing.contrast < DIFFICULT_CONTRAST),
        truncated=thing.whole_box_cut,
        occluded=bool(share < 0.95 and not thing.whole_box_cut),
    )
