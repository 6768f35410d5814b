"""2,000 regions of a 500×375 image as normalised squares of 227 pixels, with context.

python -m benchmarks.warp
"""

import math
import statistics

import cv2
import numpy as np
import torch

from benchmarks.timing import compare, seconds
from detection.regions.warp import Warp, rectangles, sample_on_device, warp_regions
from detection.runtime.memory import keep_freed_memory

WARP = Warp(227, 16)
SIZE = (375, 500)
BATCH = 256  # regions at a time, as R-CNN's features take them
MEAN = np.array([0.481, 0.4575, 0.4078], np.float32)


def some_boxes(count: int) -> torch.Tensor:
    generator = np.random.default_rng(0)
    low = generator.uniform(0, [400, 300], (count, 2))
    high = np.minimum(low + generator.uniform(20, [300, 250], (count, 2)), [500, 375])
    return torch.from_numpy(np.concatenate([low, high], axis=1).astype(np.float32)).round()


def ours(image: torch.Tensor, boxes: torch.Tensor) -> None:
    normalized = image.float() / 255 - torch.from_numpy(MEAN).view(3, 1, 1).to(image.device)
    for some in boxes.split(BATCH):
        warp_regions([normalized], [some], WARP)


def loop(image: np.ndarray, boxes: list[list[int]]) -> None:
    """What R-CNN's code does: crop, resize, subtract and place each region by itself."""
    for start in range(0, len(boxes), BATCH):
        squares = [one(image, box) for box in boxes[start : start + BATCH]]
        torch.from_numpy(np.stack(squares))


def one(image: np.ndarray, box: list[int]) -> np.ndarray:
    """One region, (3, S, S): rcnn_im_crop.m."""
    side, padding = WARP.size_px, WARP.padding_px
    context = side / (side - 2 * padding)
    begin, end, start, stop = [], [], [], []
    for low, high, limit in ((box[0], box[2], SIZE[1]), (box[1], box[3], SIZE[0])):
        centre, half = (low + high) / 2, (high - low) / 2 * context
        first, last = math.floor(centre - half + 0.5), math.floor(centre + half + 0.5)
        scale = side / (last - first)
        begin.append(max(first, 0))
        end.append(min(last, limit))
        start.append(math.floor((begin[-1] - first) * scale + 0.5))
        extent = math.floor((end[-1] - begin[-1]) * scale + 0.5)
        stop.append(min(start[-1] + extent, side))
    cut = image[begin[1] : end[1], begin[0] : end[0]]
    cut = cv2.resize(cut, (stop[0] - start[0], stop[1] - start[1]))
    square = np.zeros((side, side, 3), np.float32)
    square[start[1] : stop[1], start[0] : stop[0]] = cut.astype(np.float32) / 255 - MEAN
    return square.transpose(2, 0, 1)


def bare_loop(image: np.ndarray, boxes: list[list[int]]) -> None:
    """`cv2.resize` and nothing else: bytes in, bytes out, no context, no tensor."""
    for x1, y1, x2, y2 in boxes:
        cv2.resize(image[y1:y2, x1:x2], (227, 227))


def main() -> None:
    keep_freed_memory()
    pixels = np.random.default_rng(1).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    boxes = some_boxes(2000)
    whole = boxes.int().tolist()
    compare("warp", lambda: ours(image, boxes), "a loop of cv2.resize to the same tensors",
            lambda: loop(pixels, whole), runs=3)  # fmt: skip
    compare("warp", lambda: ours(image, boxes), "a loop of bare cv2.resize (bytes)",
            lambda: bare_loop(pixels, whole), runs=3)  # fmt: skip
    normalized = image.float() / 255
    part = rectangles(boxes[:BATCH], SIZE, WARP)
    sampled = seconds(lambda: sample_on_device([normalized], [part], 227)) * len(boxes) / BATCH
    print(f"the GPU's way (one grid_sample) on this CPU: {sampled:.2f} s")
    if torch.cuda.is_available():
        there, boxes_there = image.cuda(), boxes.cuda()

        def on_gpu() -> None:
            ours(there, boxes_there)
            torch.cuda.synchronize()

        on_gpu()
        print(f"on the GPU: {statistics.median(seconds(on_gpu) for _ in range(10)):.4f} s")


if __name__ == "__main__":
    main()
