"""Selective search (Uijlings et al. 2013) by OpenCV, with the settings of R-CNN's authors."""

import math
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]

MIN_SIDE = 8  # OpenCV's segmentation fails on images narrower than a few pixels
MAX_ASPECT = 8.0  # and on very long ones


@dataclass(frozen=True)
class SelectiveSearch:
    """Proposals of an image: `boxes = search(image)`. Every field is part of a store's name.

    Attributes:
        mode: "fast" is 2 colour spaces x 2 strategies, "quality" 5 x 4.
        settings: "original": R-CNN's k = 50 and 100 ("quality": 50, 100, 150, 300) with least
            segments of k pixels; "opencv": OpenCV's own k = 150, 300, 450 (... 750) and 100.
        width_px: scale images to this width first, as R-CNN did for ILSVRC; None: as they are.
        min_side_px: drop boxes with a shorter side, in the scaled image.
        max_boxes: keep at most this many, drawn at random; None: all.
        sigma: blur before segmentation.
    """

    mode: Literal["fast", "quality"] = "fast"
    settings: Literal["original", "opencv"] = "original"
    width_px: int | None = None
    min_side_px: float = 20
    max_boxes: int | None = None
    sigma: float = 0.8

    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """The (P, 4) boxes of an (H, W, 3) RGB image: half-open xyxy pixels, P >= 1.

        No box is returned twice. The order is random but the same for the same image, so that a
        prefix is a fair sample (OpenCV's own order puts the smallest first). An image in which
        nothing was found gives one box, the whole image.
        """
        height, width = image.shape[:2]
        scaled = safe_size(scale_to_width(image, self.width_px))
        found = merge_regions(scaled, self)
        big_enough = (found[:, 2:] - found[:, :2]).min(axis=1) >= self.min_side_px
        back = np.array([width / scaled.shape[1], height / scaled.shape[0]] * 2, np.float32)
        boxes = found[big_enough] * back
        boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
        boxes = np.unique(boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)], axis=0)
        if len(boxes) == 0:
            return np.array([[0, 0, width, height]], np.float32)
        order = np.random.default_rng(zlib.crc32(boxes.tobytes())).permutation(len(boxes))
        return boxes[order[: self.max_boxes]].astype(np.float32)


def merge_regions(image: NDArray[np.uint8], search: SelectiveSearch) -> Boxes:
    """All boxes of OpenCV's hierarchical grouping, (P, 4) half-open, in the given image."""
    segmentation: Any = cv2.ximgproc.segmentation  # type: ignore[attr-defined]
    engine = segmentation.createSelectiveSearchSegmentation()
    bgr = np.ascontiguousarray(image[:, :, ::-1])
    engine.setBaseImage(bgr)
    if search.settings == "opencv":
        switch = (
            engine.switchToSelectiveSearchFast
            if search.mode == "fast"
            else engine.switchToSelectiveSearchQuality
        )
        switch(150, 150, search.sigma)
    else:
        use_original_settings(engine, segmentation, bgr, search)
    found = np.asarray(engine.process(), np.float32).reshape(-1, 4)
    found[:, 2:] += found[:, :2]  # x, y, width, height → corners
    return found


def use_original_settings(
    engine: Any, segmentation: Any, bgr: NDArray[np.uint8], search: SelectiveSearch
) -> None:
    """Give OpenCV's engine the colour spaces, thresholds and strategies of R-CNN's authors.

    rcnn: selective_search/selective_search_boxes.m. OpenCV adds one hierarchy for each image,
    threshold k and strategy.
    """
    fast = search.mode == "fast"
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    hsv = cv2.cvtColor(bgr, cv2.COLOR_BGR2HSV)
    spaces = [hsv, cv2.cvtColor(bgr, cv2.COLOR_BGR2Lab)]
    if not fast:
        red_green = cv2.merge([bgr[:, :, 2], bgr[:, :, 1], grey])
        spaces += [red_green, np.ascontiguousarray(hsv[:, :, 0]), grey]
    for space in spaces:
        engine.addImage(space)
    for k in (50, 100) if fast else (50, 100, 150, 300):
        engine.addGraphSegmentation(segmentation.createGraphSegmentation(search.sigma, float(k), k))
    colour, fill, size, texture = (
        getattr(segmentation, f"createSelectiveSearchSegmentationStrategy{name}")
        for name in ("Color", "Fill", "Size", "Texture")
    )
    strategies = [(colour, texture, size, fill), (texture, size, fill)]
    strategies += [] if fast else [(fill,), (size,)]
    multiple = segmentation.createSelectiveSearchSegmentationStrategyMultiple
    for parts in strategies:
        engine.addStrategy(multiple(*(part() for part in parts)))


def scale_to_width(image: NDArray[np.uint8], width_px: int | None) -> NDArray[np.uint8]:
    """The image at a width, its aspect kept."""
    if width_px is None or image.shape[1] == width_px:
        return image
    height = max(1, round(image.shape[0] * width_px / image.shape[1]))
    return np.asarray(
        cv2.resize(image, (width_px, height), interpolation=cv2.INTER_LINEAR), np.uint8
    )


def safe_size(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image, brought to an aspect that OpenCV can segment, with about as many pixels."""
    height, width = image.shape[:2]
    if min(height, width) >= max(MIN_SIDE, max(height, width) / MAX_ASPECT):
        return image
    short = max(MIN_SIDE, math.ceil(math.sqrt(height * width / MAX_ASPECT)))
    long = max(MIN_SIDE, min(max(height, width), math.ceil(short * MAX_ASPECT)))
    size = (long, short) if width >= height else (short, long)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
