"""Geometry of boxes: float32 [N, 4] xyxy in pixels of the original image, half-open."""

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

__all__ = [
    "box_area",
    "box_iou",
    "clip_boxes_to_image",
    "decode",
    "encode",
    "flip",
    "inside",
]


def encode(boxes: Tensor, gt_boxes: Tensor) -> Tensor:
    """Targets (dx, dy, dw, dh) that move each box onto its ground truth: R-CNN, appendix C.

    Centres are in units of the box's own width and height, sizes as logarithms of the ratio.

    Args:
        boxes: (R, 4) boxes of positive area.
        gt_boxes: (R, 4) boxes of positive area, one for each box.

    >>> encode(torch.tensor([[0., 0, 10, 10]]), torch.tensor([[5., 0, 15, 10]])).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    size = boxes[:, 2:] - boxes[:, :2]
    gt_size = gt_boxes[:, 2:] - gt_boxes[:, :2]
    shift = (gt_boxes[:, :2] + gt_boxes[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / size
    return torch.cat([shift, torch.log(gt_size / size)], dim=1)  # (R, 4)


def decode(boxes: Tensor, deltas: Tensor) -> Tensor:
    """Boxes moved by (dx, dy, dw, dh): the inverse of `encode`.

    Args:
        boxes: (..., 4) boxes.
        deltas: (..., 4), broadcast against `boxes`: (R, C, 4) moves (R, 1, 4) for each class.

    >>> decode(torch.tensor([[0., 0, 10, 10]]), torch.tensor([[0.5, 0, 0, 0]])).tolist()
    [[5.0, 0.0, 15.0, 10.0]]
    """
    size = boxes[..., 2:] - boxes[..., :2]
    centre = boxes[..., :2] + size / 2 + deltas[..., :2] * size
    # e^4: a box that grows more than fifty-fold is noise, and its exponential may overflow
    half = size * torch.exp(deltas[..., 2:].clamp(max=4.0)) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def flip(boxes: Tensor, width: int) -> Tensor:
    """Boxes in the image that is mirrored left to right.

    >>> flip(torch.tensor([[1., 0, 3, 4]]), width=10).tolist()
    [[7.0, 0.0, 9.0, 4.0]]
    """
    x1, y1, x2, y2 = boxes.unbind(dim=1)
    return torch.stack([width - x2, y1, width - x1, y2], dim=1)


def inside(boxes: Tensor, windows: Tensor) -> Tensor:
    """(N, P) share of each box (N, 4) that lies in each window (P, 4)."""
    low = torch.maximum(boxes[:, None, :2], windows[None, :, :2])
    high = torch.minimum(boxes[:, None, 2:], windows[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1, keepdim=True)
    return shared / area.clamp(min=1e-6)
