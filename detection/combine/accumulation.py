"""OverFeat's accumulation of boxes (Sermanet et al. 2013, section 4.3): merged, not suppressed."""

from dataclasses import dataclass

import numpy as np
import torch

from detection.combine.nms import Detections, rank_in_class


@dataclass(frozen=True)
class Accumulation:
    """Boxes of a class that agree are merged into their average, and their scores add up.

    Again and again the pair of the least match score is joined, until that exceeds a limit. Many
    places that see the same object so outweigh the one that is sure of something else, where
    suppression would keep the single best score.

    The paper's match score is "the sum of the distance between centers of the two bounding boxes
    and the intersection area of the boxes", of which the least is sought; as printed, boxes that
    share more would match worse, and the two have different units. Here it is::

        distance_weight · |centre - centre'| / √(mean of both areas)
        + intersection_weight · (1 - intersection / the larger area)

    0 for equal boxes, and the same at every size of image. No constant is published; these were
    chosen by measuring on drawn images and photographs.

    Candidates without a score above 0 (SVMs' margins on the wrong side) are left out: they would
    move boxes that they do not believe in. Whatever the order of the candidates, the result is the
    same: ties of match scores go to the boxes farther left.

    Attributes:
        max_match_score: of a pair that is joined (the paper's t).
        distance_weight: see above.
        intersection_weight: see above; from `max_match_score` on, boxes apart are never joined.
        weighted: a merged box is the mean of all its members; False: of the two boxes that were
            joined last, as the paper has it.
        max_per_class: boxes kept of a class.
        max_per_image: boxes kept in all; None: no limit.
    """

    max_match_score: float = 0.4
    distance_weight: float = 1.0
    intersection_weight: float = 1.0
    weighted: bool = False
    max_per_class: int = 100
    max_per_image: int | None = 300

    def __call__(self, candidates: Detections) -> Detections:
        """The merged boxes, best first; see `Combination`."""
        from detection.combine.merging import merge_pairs, ready  # the compiler is slow to import

        ready()
        believed = {k: v[candidates["scores"] > 0].detach().cpu() for k, v in candidates.items()}
        boxes, scores = (believed[key].double().numpy() for key in ("boxes", "scores"))
        labels = believed["labels"].numpy()
        # one order whatever the input's; class after class, from left to right
        order = np.lexsort((scores, *boxes.T[::-1], labels))
        boxes, scores, labels = boxes[order], scores[order], labels[order]
        ends = np.flatnonzero(np.diff(labels)) + 1
        kept = []
        for start, end in zip([0, *ends], [*ends, len(labels)], strict=True):
            left = merge_pairs(
                boxes[start:end], scores[start:end], self.distance_weight,
                self.intersection_weight, self.max_match_score, self.weighted,
            )  # fmt: skip
            kept.append(start + left)
        rows = np.concatenate(kept)
        rows = rows[np.argsort(-scores[rows], kind="stable")]  # best first
        device = candidates["boxes"].device
        result = {
            "boxes": torch.from_numpy(boxes[rows]).float().to(device),
            "scores": torch.from_numpy(scores[rows]).float().to(device),
            "labels": torch.from_numpy(labels[rows]).to(device),
        }
        chosen = rank_in_class(result["labels"]) < self.max_per_class
        return {name: value[chosen][: self.max_per_image] for name, value in result.items()}
