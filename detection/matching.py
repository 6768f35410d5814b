"""Which ground truth a box belongs to, and whether it is an object, background, or neither."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

OBJECT, IGNORED, BACKGROUND = 1, -1, 0


class Matches(NamedTuple):
    """What each of R boxes is matched to.

    Attributes:
        gt: (R,) int64, index of the ground truth of largest IoU, the first of equals; 0 without.
        kind: (R,) int8: 1 an object, 0 background, -1 neither (ignored).
        iou: (R,) largest IoU with any ground truth; 0 without any.
    """

    gt: Tensor
    kind: Tensor
    iou: Tensor

    @property
    def is_object(self) -> Tensor:
        """(R,) bool."""
        return self.kind == OBJECT

    @property
    def is_background(self) -> Tensor:
        """(R,) bool."""
        return self.kind == BACKGROUND


@dataclass(frozen=True)
class Matcher:
    """Tells objects from background by the largest overlap with any ground truth.

    The thresholds cut [0, 1] into bands. With SPP-net's 0.5, 0.1 and 0.5 (section 4.1)::

        IoU   0 ....... 0.1 .......... 0.5 .......... 1
              ignored    |  background  |   object

    A box whose IoU is exactly `foreground_min_iou` is an object; one of exactly
    `background_min_iou` is background, and of exactly `background_max_iou` it is not. R-CNN (2.3)
    takes everything below 0.5 as background: 0.5, 0.0, 0.5. Where background ends below the
    objects' threshold (RPN: 0.7, 0.0, 0.3), what lies between is ignored.

    Attributes:
        foreground_min_iou: a box that overlaps a ground truth by at least this is that object.
        background_min_iou: background overlaps its best ground truth by at least this ...
        background_max_iou: ... and by less than this.
        best_of_each_gt: the box (or boxes, if equal) that overlaps a ground truth most is that
            object however small the overlap, if there is one; where two ground truths share
            their best box, it belongs to the one that it overlaps more. (Anchors: RPN, 3.1.2.)
    """

    foreground_min_iou: float = 0.5
    background_min_iou: float = 0.0
    background_max_iou: float = 0.5
    best_of_each_gt: bool = False

    def __call__(self, boxes: Tensor, gt_boxes: Tensor) -> Matches:
        """Match boxes to ground truths.

        Args:
            boxes: (R, 4) xyxy; R may be 0.
            gt_boxes: (N, 4) xyxy; N may be 0: then no box is an object.

        >>> boxes = torch.tensor([[0., 0, 10, 10], [0, 0, 10, 4], [50, 50, 60, 60]])
        >>> matches = Matcher(0.5, 0.1, 0.5)(boxes, torch.tensor([[0., 0, 10, 10]]))
        >>> matches.kind.tolist(), matches.gt.tolist()
        ([1, 0, -1], [0, 0, 0])
        """
        if len(gt_boxes) == 0 or len(boxes) == 0:
            iou = boxes.new_zeros(len(boxes))
            gt = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
            return Matches(gt, self._kinds(iou), iou)
        overlaps = box_iou(boxes, gt_boxes)  # (R, N)
        iou, gt = overlaps.max(dim=1)
        kind = self._kinds(iou)
        if self.best_of_each_gt:
            best = overlaps.amax(dim=0)  # (N,)
            # equal to within rounding: CPU and GPU differ in the last bits of an IoU
            forced = (overlaps >= best - 1e-6) & (best > 0)
            chosen, which = overlaps.where(forced, -1).max(dim=1)
            gt = torch.where(chosen > 0, which, gt)  # it also regresses to the one it is forced to
            kind[chosen > 0] = OBJECT
        return Matches(gt, kind, iou)

    def _kinds(self, iou: Tensor) -> Tensor:
        kind = torch.full_like(iou, IGNORED, dtype=torch.int8)
        kind[(iou >= self.background_min_iou) & (iou < self.background_max_iou)] = BACKGROUND
        kind[iou >= self.foreground_min_iou] = OBJECT
        return kind


def drawn(mask: Tensor, most: int | None, generator: np.random.Generator) -> Tensor:
    """Numbers of at most so many of the places where a mask (R,) is true, at random; None: all."""
    places = torch.nonzero(mask)[:, 0]
    if most is None or len(places) <= most:
        return places
    return places[torch.from_numpy(generator.permutation(len(places))[:most])]
