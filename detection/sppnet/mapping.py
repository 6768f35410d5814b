"""Which scale a window is read at, and where it lies on that scale's map (SPP-net, section 4.1)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detection.backbones.receptive_field import ReceptiveField

ScaleRule = Literal["paper", "original"]


def choose_scales(
    boxes: Tensor, min_side_px: int, scales_px: Sequence[int], target_px: float, rule: ScaleRule
) -> Tensor:
    """Index of the scale at which each window is read, (R,) int64; the first among equals.

    Args:
        boxes: (R, 4) half-open xyxy in pixels of the original image.
        min_side_px: shorter side of that image.
        scales_px: shorter sides of the scaled images.
        target_px: side of the square to which a scaled window should be nearest: 224 in the paper.
        rule: "paper": nearest in area; "original": nearest in scale to
            round(target · shorter side / √area), with a target of 13 · 16 = 208.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(dim=1).double()
    scales = torch.tensor(scales_px, dtype=torch.double, device=boxes.device)
    if rule == "original":
        # Matlab rounds halves away from zero
        wanted = torch.floor(target_px * min_side_px / area.sqrt() + 0.5)
        return (scales - wanted[:, None]).abs().argmin(dim=1)
    scaled_area = area[:, None] * (scales / min_side_px) ** 2  # (R, S)
    return (scaled_area - target_px**2).abs().argmin(dim=1)


def scale_boxes(boxes: Tensor, min_side_px: int, scales_px: Tensor) -> Tensor:
    """First and last pixel (0-based, inclusive) of windows in their scaled images, (R, 4) double.

    The original maps pixel p of the image to p (s - 1) / (m - 1): corners go to corners.

    Args:
        boxes: (R, 4) half-open xyxy in pixels of the original image.
        min_side_px: shorter side m of that image.
        scales_px: (R,) shorter side s of the scaled image of each window.
    """
    pixels = boxes.double()
    pixels = torch.cat([pixels[:, :2], pixels[:, 2:] - 1], dim=1)
    factor = (scales_px.double() - 1) / max(1, min_side_px - 1)
    return pixels * factor[:, None]


def windows_on_map(
    pixels: Tensor, field: ReceptiveField, shrink_px: float, map_size: tuple[int, int]
) -> Tensor:
    """Cells of the map that belong to each window, (R, 4) int64 xyxy, half-open, never empty.

    SPP_net: utils/spm_pool/spm_pool_caffe_mex.cpp, with the stride and the offset computed from
    the network's layers. Every side is drawn in by `shrink_px`, for the field of a cell on the
    window's border reaches beyond it.

    Args:
        pixels: (R, 4) first and last pixel of each window in the scaled image, from 0.
        field: of the map.
        shrink_px: 6.5 in the original for ZF-5.
        map_size: height and width of the map.
    """
    place = (pixels - field.start) / field.stride  # in cells; the first cell's centre is 0
    shrink = shrink_px / field.stride
    first = torch.floor(place[:, :2] + shrink + 0.5)
    last = torch.ceil(place[:, 2:] - shrink - 0.5)
    # the original's midpoint is truncated on 1-based cells
    middle = torch.trunc((first + last) / 2 + 1) - 1
    crossed = first > last
    first, last = torch.where(crossed, middle, first), torch.where(crossed, middle, last)
    height, width = map_size
    limit = torch.tensor([width - 1, height - 1], device=pixels.device).double()
    first, last = (torch.minimum(v.clamp(min=0), limit) for v in (first, last))
    return torch.cat([first, last + 1], dim=1).long()
