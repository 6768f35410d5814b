"""Which anchors of an image are learnt, and the loss of them (Ren et al. 2015, 3.1.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detection.boxes import box_iou, encode
from detection.matching import Matcher, drawn
from detection.rpn.head import RPNHead


@dataclass(frozen=True, kw_only=True)
class AnchorOptions:
    """Which anchors are learnt, and how; as Faster R-CNN's release has it.

    Attributes:
        matcher: which anchors are objects and background (anchor_target_layer.py).
        cross_boundary: anchors that leave the image are learnt too; False: left out.
        anchors_per_image: sampled from an image, half of them on objects at most.
        beta: of smooth ℓ1, where a square turns to a line: 1/σ², σ = 3 (train.prototxt).
        box_weight: of the boxes' loss.
    """

    matcher: Matcher = Matcher(0.7, 0.0, 0.3, best_of_each_gt=True)
    cross_boundary: bool = False
    anchors_per_image: int = 256
    beta: float = 1 / 9
    box_weight: float = 1.0


class Sampled(NamedTuple):
    """Anchors of an image that a step learns from.

    Attributes:
        anchor: (R,) numbers, cell after cell.
        is_object: (R,) 1.0 or 0.0.
        codes: (O, 4) that `decode` shall take, of the objects, which come first.
    """

    anchor: Tensor
    is_object: Tensor
    codes: Tensor


def sample_anchors(
    anchors: Tensor,
    boxes: Tensor,
    hidden: Tensor,
    size: tuple[int, int],
    options: AnchorOptions,
    generator: np.random.Generator,
) -> Sampled:
    """Anchors on objects and on background, half of each at most.

    Where there are fewer on objects, background fills up, as Faster R-CNN's release does.

    Args:
        anchors: (N, 4) of the image's map.
        boxes: (G, 4) of the objects.
        hidden: (M, 4) boxes that are neither objects nor background.
        size: height and width of the image.
        options: how.
        generator: of the choice.
    """
    number = torch.arange(len(anchors))
    if not options.cross_boundary:  # before the best of each object are chosen
        far = anchors.new_tensor([size[1], size[0]])
        within = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2:] <= far).all(dim=1)
        number, anchors = number[within], anchors[within]
    matches = options.matcher(anchors, boxes)
    is_object, is_background = matches.is_object, matches.is_background
    if len(hidden) and len(anchors):
        overlap = box_iou(anchors, hidden).amax(dim=1)
        is_background = is_background & (overlap < options.matcher.background_max_iou)
    objects = drawn(is_object, options.anchors_per_image // 2, generator)
    background = drawn(is_background, options.anchors_per_image - len(objects), generator)
    flags = (torch.arange(len(objects) + len(background)) < len(objects)).float()
    gt = boxes[matches.gt[objects]] if len(objects) else anchors[:0]
    return Sampled(number[torch.cat([objects, background])], flags, encode(anchors[objects], gt))


def anchor_losses(
    head: RPNHead, rows: Tensor, labels: Tensor, sampled: Sequence[Sampled], options: AnchorOptions
) -> tuple[Tensor, Tensor]:
    """Logistic loss of the sampled anchors, and smooth ℓ1 of those on objects.

    Both are shares of all sampled anchors.

    Args:
        head: says scores and boxes.
        rows: (R, D) features of their cells.
        labels: (R,) the class of each; on the CPU, as the samples are.
        sampled: of each image, R in all.
        options: how.
    """
    device = rows.device
    number = torch.cat([some.anchor for some in sampled])
    is_object = torch.cat([some.is_object for some in sampled])
    objects = torch.nonzero(is_object)[:, 0].to(device)
    wanted = torch.cat([some.codes for some in sampled]).to(device)
    logits, codes = head.at(rows, (number % head.anchors).to(device), labels.to(device))
    of_scores = F.binary_cross_entropy_with_logits(
        logits.float(), is_object.to(device), reduction="sum"
    )
    errors = F.smooth_l1_loss(codes.float()[objects], wanted, beta=options.beta, reduction="sum")
    count = max(1, len(number))  # an image may have none
    return of_scores / count, errors / count
