"""Box voting (Gidaris and Komodakis 2015; ResNet's detector, appendix B, uses it)."""

from dataclasses import dataclass

import torch

from detection.boxes import box_iou
from detection.combine.nms import NMS, Detections

MOST = 4_000_000  # pairs that are looked at together


@dataclass(frozen=True)
class BoxVoting:
    """NMS, after which each box that stays is the mean of all that it overlaps, by their scores.

    Scores stay those of suppression. Scores below 0 (SVMs' margins) have no vote.

    Attributes:
        max_iou: see `NMS`.
        voting_min_iou: candidates of the class that overlap a kept box at least so much vote for
            its place (Gidaris and Komodakis: 0.5).
        max_per_class: see `NMS`.
        max_per_image: see `NMS`.
    """

    max_iou: float = 0.3
    voting_min_iou: float = 0.5
    max_per_class: int = 100
    max_per_image: int | None = 300

    def __call__(self, candidates: Detections) -> Detections:
        """See `Combination`."""
        kept = NMS(self.max_iou, self.max_per_class, self.max_per_image)(candidates)
        boxes, scores = candidates["boxes"].double(), candidates["scores"].double().clamp(min=0)
        voted = []
        # some at a time: 300 boxes of 400,000 candidates would be a table of a gigabyte
        for start in range(0, len(kept["boxes"]), max(1, MOST // max(1, len(boxes)))):
            rows = slice(start, start + max(1, MOST // len(boxes)))
            own, labels = kept["boxes"][rows].double(), kept["labels"][rows]
            is_voter = box_iou(own, boxes) >= self.voting_min_iou  # (K, N)
            is_voter &= labels[:, None] == candidates["labels"][None]
            weights = is_voter * scores[None]
            total = weights.sum(dim=1, keepdim=True)  # (K, 1)
            with torch.autocast(boxes.device.type, enabled=False):  # corners need all their bits
                mean = weights @ boxes / total.clamp(min=1e-12)
            voted.append(mean.where(total > 0, own))
        return {**kept, "boxes": torch.cat([kept["boxes"][:0].double(), *voted]).float()}
