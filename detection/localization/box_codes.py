"""Boxes in the frame of a window (OverFeat, figure 8), and what teaches a regressor of them."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import generalized_box_iou_loss

from detection.boxes import decode, encode

Code = Literal["edges", "centre_size"]
Loss = Literal["l2", "smooth_l1", "iou", "giou"]
BETA = 0.1  # of smooth ℓ1, in sides of a window: where it turns from a square to a line
OUTPUT_STD = 0.01


def to_window(windows: Tensor, boxes: Tensor, code: Code) -> Tensor:
    """What a regressor shall say of boxes (R, 4), seen from windows (R, 4): (R, 4).

    "edges" are left, top, right and bottom, 0 at the window's own left and top and 1 at its right
    and bottom. "centre_size" is R-CNN's parametrisation (see `encode`), less correlated, which
    OverFeat's section 6 wishes for.

    >>> window, box = torch.tensor([[10., 10, 30, 30]]), torch.tensor([[15., 10, 30, 50]])
    >>> to_window(window, box, "edges").tolist()
    [[0.25, 0.0, 1.0, 2.0]]
    """
    if code == "centre_size":
        return encode(windows, boxes)
    size = windows[:, 2:] - windows[:, :2]
    return (boxes - windows[:, :2].repeat(1, 2)) / size.repeat(1, 2)


def from_window(windows: Tensor, said: Tensor, code: Code) -> Tensor:
    """Boxes (..., 4) from what was said of them: the inverse of `to_window`.

    Edges that cross each other are put in order.

    Args:
        windows: (..., 4), broadcast against `said`: (R, 1, 4) for the (R, C, 4) of C classes.
        said: (..., 4).
        code: see `to_window`.
    """
    if code == "centre_size":
        return decode(windows, said)
    corner, size = windows[..., :2], windows[..., 2:] - windows[..., :2]
    first, second = (corner + said[..., part] * size for part in (slice(0, 2), slice(2, 4)))
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def starting_output(output: nn.Linear, code: Code) -> None:
    """Initialise a fresh output so that it says the window itself, whatever it sees."""
    nn.init.normal_(output.weight, std=OUTPUT_STD)
    whole = [0.0, 0.0, 1.0, 1.0] if code == "edges" else [0.0] * 4
    with torch.no_grad():
        output.bias.copy_(torch.tensor(whole).repeat(len(output.bias) // 4))


def box_loss(said: Tensor, windows: Tensor, boxes: Tensor, code: Code, loss: Loss) -> Tensor:
    """The mean loss of R windows; 0 with a gradient where there is none.

    Args:
        said: see `box_losses`.
        windows: see there.
        boxes: see there.
        code: see there.
        loss: see there.
    """
    return box_losses(said, windows, boxes, code, loss).mean() if len(said) else said.sum()


def box_losses(said: Tensor, windows: Tensor, boxes: Tensor, code: Code, loss: Loss) -> Tensor:
    """(R,) loss of each window.

    Args:
        said: (R, 4) outputs.
        windows: (R, 4).
        boxes: (R, 4) true boxes, in the same pixels.
        code: what the outputs say of a box.
        loss: "l2" is the sum of squares over the four numbers (4.2), "smooth_l1" likewise; "iou"
            and "giou" are 1 minus the (generalised) overlap of the boxes (section 6's wish).
    """
    if loss in ("l2", "smooth_l1"):
        target = to_window(windows, boxes, code)
        if loss == "l2":
            return F.mse_loss(said, target, reduction="none").sum(dim=1)
        return F.smooth_l1_loss(said, target, reduction="none", beta=BETA).sum(dim=1)
    size = windows[:, 2:3] - windows[:, :1]  # in sides of a window, so that areas are about 1
    found = from_window(windows, said, code) / size
    wanted = boxes / size
    if loss == "giou":
        result: Tensor = generalized_box_iou_loss(found, wanted)
        return result
    return 1 - paired_iou(found, wanted)


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """(R,) overlap of each box (R, 4) with its partner (R, 4)."""
    low = torch.maximum(boxes[:, :2], others[:, :2])
    high = torch.minimum(boxes[:, 2:], others[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=1)
    areas = [(b[:, 2:] - b[:, :2]).prod(dim=1) for b in (boxes, others)]
    return shared / (areas[0] + areas[1] - shared).clamp(min=1e-9)
