"""Geometry of boxes: float32 [N, 4] xyxy in pixels of the original image, half-open."""

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

__all__ = [
    "best_overlaps",
    "box_area",
    "box_iou",
    "clip_boxes_to_image",
    "decode",
    "encode",
    "flip",
]


def best_overlaps(boxes: Tensor, truths: Tensor) -> tuple[Tensor, Tensor]:
    """Largest IoU of each box with any truth, and that truth's index (0 and 0 without truths).

    Args:
        boxes: (R, 4) boxes.
        truths: (N, 4) boxes; N may be 0.

    >>> best_overlaps(torch.tensor([[0., 0, 2, 2]]), torch.tensor([[5., 5, 6, 6], [0, 0, 2, 1]]))
    (tensor([0.5000]), tensor([1]))
    """
    if len(truths) == 0:
        return boxes.new_zeros(len(boxes)), torch.zeros(
            len(boxes), dtype=torch.long, device=boxes.device
        )
    overlap, index = box_iou(boxes, truths).max(dim=1)
    return overlap, index


def encode(boxes: Tensor, truths: Tensor) -> Tensor:
    """Targets (dx, dy, dw, dh) that move each box onto its truth: R-CNN, appendix C.

    Centres are told in the box's own width and height, sizes as logarithms of the ratio.

    Args:
        boxes: (R, 4) boxes of positive area.
        truths: (R, 4) boxes of positive area, one for each box.

    >>> encode(torch.tensor([[0., 0, 10, 10]]), torch.tensor([[5., 0, 15, 10]])).tolist()
    [[0.5, 0.0, 0.0, 0.0]]
    """
    size = boxes[:, 2:] - boxes[:, :2]
    truth_size = truths[:, 2:] - truths[:, :2]
    shift = (truths[:, :2] + truths[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2 / size
    return torch.cat([shift, torch.log(truth_size / size)], dim=1)  # (R, 4)


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
