"""Selective search as OpenCV has it: a peer of ours, and the proposals of older runs."""

import math
import zlib
from typing import Any

import cv2
import numpy as np

from detection.proposals.selective_search import Boxes, Image, SelectiveSearch

MIN_SIDE = 8  # OpenCV's segmentation fails on images narrower than a few pixels
MAX_ASPECT = 8.0  # and on very long ones


def search(image: Image, size: tuple[int, int], settings: SelectiveSearch) -> Boxes:
    """The (P, 4) boxes of a scaled image, in pixels of the image of some height and width."""
    height, width = size
    scaled = safe_size(image)
    found = merge_regions(scaled, settings)
    big_enough = (found[:, 2:] - found[:, :2]).min(axis=1) >= settings.min_side_px
    back = np.array([width / scaled.shape[1], height / scaled.shape[0]] * 2, np.float32)
    boxes = found[big_enough] * back
    boxes = np.clip(boxes, 0, np.array([width, height] * 2, np.float32))
    boxes = np.unique(boxes[(boxes[:, 2:] > boxes[:, :2]).all(axis=1)], axis=0)
    if len(boxes) == 0:
        return np.array([[0, 0, width, height]], np.float32)
    # OpenCV's own order puts the smallest first, drawn by C's rand()
    order = np.random.default_rng(zlib.crc32(boxes.tobytes())).permutation(len(boxes))
    return boxes[order[: settings.max_boxes]].astype(np.float32)


def merge_regions(image: Image, search: SelectiveSearch) -> Boxes:
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
    engine: Any, segmentation: Any, bgr: Image, search: SelectiveSearch
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


def safe_size(image: Image) -> Image:
    """The image, brought to an aspect that OpenCV can segment, with about as many pixels."""
    height, width = image.shape[:2]
    if min(height, width) >= max(MIN_SIDE, max(height, width) / MAX_ASPECT):
        return image
    short = max(MIN_SIDE, math.ceil(math.sqrt(height * width / MAX_ASPECT)))
    long = max(MIN_SIDE, min(max(height, width), math.ceil(short * MAX_ASPECT)))
    size = (long, short) if width >= height else (short, long)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)
