"""Regions as squares of pixels (R-CNN, section 2.1 and appendix A), all at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PADDING = 2.0  # times the images' own pixels
MAX_ROWS = 65_535  # of what cuDNN samples at a time

Mode = Literal["warp", "square_with_context", "square"]
Outside = Literal["mean", "edge"]
Normalize = Callable[[Tensor], Tensor]


def same(images: Tensor) -> Tensor:
    """Images that are normalised already."""
    return images


@dataclass(frozen=True)
class Warp:
    """How a region becomes a square of pixels.

    Attributes:
        size_px: side of the crops.
        padding_px: context about the region, in pixels of the square.
        mode: "warp": the region is stretched to the square; "square_with_context": the tightest
            square about the region is scaled; "square": the same, without what lies outside the
            region (and its padding).
        original_shift: cut out one column and row more on the right and below, as the original
            does: it takes the centre half a pixel too far, and both ends as inclusive.
        outside: what fills the rest of the square, beyond the image or, with "square", beyond the
            region: the "mean", or the pixels of the "edge" again (appendix A: "replication").
    """

    size_px: int
    padding_px: int
    mode: Mode = "warp"
    original_shift: bool = False
    outside: Outside = "mean"


@dataclass(frozen=True)
class Rectangles:
    """What is cut out of an image, and where it lies in the square; both int64, half-open.

    Attributes:
        source: (R, 4) xyxy in the image, inside it.
        target: (R, 4) xyxy in the square; the rest of the square is filled.
    """

    source: Tensor
    target: Tensor


def rectangles(boxes: Tensor, size: tuple[int, int] | Tensor, warp: Warp) -> Rectangles:
    """Where regions come from and go to: rcnn_im_crop.m, for all regions of all images at once.

    Args:
        boxes: (R, 4) half-open xyxy in pixels of their images; of any size, inside them or not.
        size: height and width of the image, or (R, 2) of each region's.
        warp: how.
    """
    low, high = boxes.double()[:, :2], boxes.double()[:, 2:]
    half = ((high - low) / 2).clamp(min=0.5)
    side = torch.full_like(low, warp.size_px)  # that is filled of each square
    if warp.mode == "square":  # the region only, scaled as its square is
        inner = warp.size_px - 2 * warp.padding_px
        side = 2 * warp.padding_px + inner * half / half.amax(dim=1, keepdim=True)
    # the padding is fixed in pixels of the square, so a large region gets more of the image
    context = side / (side - 2 * warp.padding_px)
    if warp.mode == "square_with_context":
        half = half.amax(dim=1, keepdim=True).expand(-1, 2)
    centre = (low + high) / 2
    moved = warp.original_shift and (warp.padding_px > 0 or warp.mode != "warp")
    # MATLAB counts from 1, and rounds halves away from 0
    begin = round_half_away(centre - half * context + 1) - 1
    end = round_half_away(centre + half * context + 1)
    if not moved:
        begin, end = round_half_up(centre - half * context), round_half_up(centre + half * context)
    end = torch.maximum(end, begin + 1)
    # what lies outside the image is not cut out; the square keeps the mean there
    limit = torch.as_tensor(size, dtype=torch.double, device=boxes.device).flip(-1)
    begin_in = torch.minimum(begin.clamp(min=0), limit - 1)
    end_in = torch.maximum(torch.minimum(end, limit), begin_in + 1)
    scale = side / (end - begin)
    start = round_half_up((warp.size_px - side) / 2 + (begin_in - begin) * scale)
    start = start.clamp(0, warp.size_px - 1)
    extent = round_half_up((end_in - begin_in) * scale).clamp(min=1)
    stop = (start + extent).clamp(max=warp.size_px)
    return Rectangles(
        torch.cat([begin_in, end_in], dim=1).long(), torch.cat([start, stop], dim=1).long()
    )


def round_half_up(value: Tensor) -> Tensor:
    """To integers; halves go up.

    >>> round_half_up(torch.tensor([0.5, 1.5, -0.5, 2.4])).tolist()
    [1.0, 2.0, 0.0, 2.0]
    """
    return (value + 0.5).floor()


def round_half_away(value: Tensor) -> Tensor:
    """To integers; halves go away from 0, as MATLAB's do.

    >>> round_half_away(torch.tensor([0.5, 1.5, -0.5, 2.4])).tolist()
    [1.0, 2.0, -1.0, 2.0]
    """
    return value.sign() * (value.abs() + 0.5).floor()


def warp_regions(
    images: Sequence[Tensor], boxes: Sequence[Tensor], warp: Warp, normalize: Normalize = same
) -> Tensor:
    """Squares (R, 3, S, S) of the regions of some images, one image's after the other's.

    On a GPU those of images of one size are sampled together, some hundreds in a call. On a CPU
    OpenCV resizes them in as many threads as torch has, which is several times as fast there
    (benchmarks/warp.py); channels then lie last in memory.

    Args:
        images: (3, H, W) float32, or what `normalize` takes.
        boxes: for each image (R', 4) half-open xyxy.
        warp: how.
        normalize: makes (..., 3, H, W) float32 of them whose mean is zero; on a GPU of all images
            at once.
    """
    counts = [len(some) for some in boxes]
    if not sum(counts):
        return images[0].new_zeros(0, 3, warp.size_px, warp.size_px, dtype=torch.float32)
    sizes = torch.tensor([[int(side) for side in image.shape[1:]] for image in images])
    each = sizes.repeat_interleave(torch.tensor(counts), dim=0)
    cut = rectangles(torch.cat(list(boxes)), each.to(boxes[0].device), warp)
    if on_cpu(images):
        ready = [normalize(image) for image in images]
        return resize_on_cpu(ready, counts, cut, warp.size_px, warp.outside)
    return sample_on_device(images, counts, cut, warp.size_px, warp.outside, normalize)


def on_cpu(images: Sequence[Tensor]) -> bool:
    """Whether images lie where OpenCV can resize them."""
    return images[0].device.type == "cpu"


def resize_on_cpu(
    images: Sequence[Tensor], counts: Sequence[int], cut: Rectangles, side: int,
    outside: Outside = "mean",
) -> Tensor:  # fmt: skip
    """The crops by OpenCV: the first `counts[0]` rectangles are of the first image, and so on."""
    total = len(cut.source)
    crops = torch.zeros(total, side, side, 3)  # the mean
    view = crops.numpy()
    arrays = [i.permute(1, 2, 0).contiguous().numpy() for i in images]
    of_rows = [array for array, count in zip(arrays, counts, strict=True) for _ in range(count)]
    places = torch.cat([cut.source, cut.target], dim=1).tolist()

    def resize(first: int) -> None:
        for row in range(first, total, threads):  # OpenCV releases the GIL
            x1, y1, x2, y2, left, top, right, bottom = places[row]
            place = view[row, top:bottom, left:right]
            cv2.resize(of_rows[row][y1:y2, x1:x2], (right - left, bottom - top), dst=place)
            if outside == "edge":
                margins = (top, side - bottom, left, side - right)
                cv2.copyMakeBorder(place.copy(), *margins, cv2.BORDER_REPLICATE, dst=view[row])

    threads = min(torch.get_num_threads(), total)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(resize, range(threads)))
    return crops.permute(0, 3, 1, 2)


def sample_on_device(
    images: Sequence[Tensor], counts: Sequence[int], cut: Rectangles, side: int,
    outside: Outside = "mean", normalize: Normalize = same,
) -> Tensor:  # fmt: skip
    """The crops by one bilinear sampling, on the images' device.

    Images are padded to one size, and each image's regions to one number; images of very
    different sizes are sampled one by one.
    """
    device = images[0].device
    height, width = (max(2, *(int(i.shape[d]) for i in images)) for d in (1, 2))
    pixels = sum(int(i.shape[1]) * int(i.shape[2]) for i in images)
    if len(images) > 1 and len(images) * height * width > MAX_PADDING * pixels:
        parts = zip(cut.source.split(list(counts)), cut.target.split(list(counts)), strict=True)
        return torch.cat(
            [
                sample_on_device([i], [len(p[0])], Rectangles(*p), side, outside, normalize)
                for i, p in zip(images, parts, strict=True)
                if len(p[0])
            ]
        )
    # one sampling call for all images: a launch for each of 2,000 regions would starve a GPU
    canvas = images[0].new_zeros(len(images), 3, height, width)
    for row, image in enumerate(images):
        canvas[row, :, : image.shape[1], : image.shape[2]] = image
    canvas = normalize(canvas)  # what lies beside an image is never read
    numbers = torch.tensor(counts)
    which = torch.arange(len(images)).repeat_interleave(numbers)
    rank = torch.arange(len(which)) - (numbers.cumsum(0) - numbers)[which]  # within its image
    which, rank = which.to(device), rank.to(device)
    source = torch.zeros(len(images), max(counts), 4, device=device)
    target = torch.zeros(len(images), max(counts), 4, device=device)
    source[which, rank] = cut.source.to(source)
    target[which, rank] = cut.target.to(target)
    place = torch.arange(side, device=device, dtype=torch.float32)
    x = sampled(place, source[..., 0::2], target[..., 0::2], width, outside)
    y = sampled(place, source[..., 1::2], target[..., 1::2], height, outside)
    grid = torch.stack(
        [x[:, :, None].expand(-1, -1, side, -1), y[..., None].expand(-1, -1, -1, side)], dim=-1
    )  # (B, K, S, S, 2)
    crops = torch.cat(
        [
            F.grid_sample(canvas, some.flatten(1, 2), align_corners=True).unflatten(2, (-1, side))
            for some in grid.split(max(1, MAX_ROWS // side), dim=1)
        ],
        dim=2,
    ).transpose(1, 2)  # (B, K, 3, S, S)
    return crops[which, rank]


def sampled(place: Tensor, source: Tensor, target: Tensor, side: int, outside: Outside) -> Tensor:
    """Where along one axis each pixel of a square reads, (..., S), in `grid_sample`'s coordinates.

    As in OpenCV, pixels beyond the cut-out repeat its border; what is not the target's reads its
    edge, or far outside the image, which is zero.
    """
    begin, end = source[..., :1], source[..., 1:]
    left, right = target[..., :1], target[..., 1:]
    if outside == "edge":
        place = torch.minimum(torch.maximum(place, left), right - 1)
    pixel = begin + (place - left + 0.5) * (end - begin) / (right - left) - 0.5
    pixel = torch.minimum(torch.maximum(pixel, begin), end - 1)
    relative = 2 * pixel / max(side - 1, 1) - 1
    return torch.where((place >= left) & (place < right), relative, torch.full_like(relative, -3.0))
