"""Box voting (Gidaris and Komodakis 2015; ResNet's detector, appendix B, uses it)."""

from dataclasses import dataclass

from detection.boxes import box_iou
from detection.combine.nms import NMS, Detections


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
        is_voter = box_iou(kept["boxes"], candidates["boxes"]) >= self.voting_min_iou  # (K, N)
        is_voter &= kept["labels"][:, None] == candidates["labels"][None]
        weights = is_voter * candidates["scores"].clamp(min=0)[None]
        total = weights.sum(dim=1, keepdim=True)  # (K, 1)
        mean = weights @ candidates["boxes"] / total.clamp(min=1e-12)
        return {**kept, "boxes": mean.where(total > 0, kept["boxes"])}
