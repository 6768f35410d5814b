"""How far off a figure may be on a small test set: the bootstrap over images (Efron 1979)."""

import math

import torch
from torch import Tensor

from detection.metrics.voc_ap import RECALL_POINTS, Interpolation, MatchedDetections

FEW_IMAGES = 1000  # above it, chance says less than the choice of a seed
RESAMPLINGS = 1000
INSIDE = 0.95  # of the resamplings lie in the interval


def resampled(images: int, seed: int = 0) -> Tensor:
    """How often each image is drawn, (B, I) double: I draws with replacement, B times."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (RESAMPLINGS, images), generator=generator)
    counts = torch.zeros(RESAMPLINGS, images, dtype=torch.double)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.double))


def interval(name: str, values: Tensor) -> dict[str, float]:
    """`interval/<name>_low` and `..._high`, between which 95 % of the values (B,) lie.

    Nothing where there is none; resamplings without a value (NaN) are left out.
    """
    tail = (1 - INSIDE) / 2
    low, high = (float(values.nanquantile(share)) for share in (tail, 1 - tail))
    return {} if math.isnan(low) else {f"interval/{name}_low": low, f"interval/{name}_high": high}


def mean_shares(is_right: Tensor, counts: Tensor) -> Tensor:
    """The share of right answers in each resampling, (B,), from those of the images (I,)."""
    return (counts @ is_right.double()) / counts.sum(dim=1)


def resampled_maps(
    detections: Tensor,
    gt: Tensor,
    num_classes: int,
    matched: MatchedDetections,
    counts: Tensor,
    interpolation: Interpolation,
) -> Tensor:
    """The mAP of each resampling, (B,): what a test would come to on those images, each by itself.

    Args:
        detections: (D, 7) double: image, from 0 to I - 1, label, score, box.
        gt: (T, 7) double: image, label, difficult, box.
        num_classes: C.
        matched: what the detections are; it is the same in every resampling, for a detection is
            held against the objects of its own image.
        counts: (B, I), see `resampled`.
        interpolation: of AP.
    """
    order = matched.order[matched.is_true_positive[matched.order] >= 0]
    aps = torch.full((num_classes, len(counts)), torch.nan, dtype=torch.double)
    for label in range(num_classes):
        fair = gt[(gt[:, 1] == label) & (gt[:, 2] == 0), 0].long()
        if len(fair) == 0:
            continue
        mine = order[detections[order, 1] == label]
        hit = matched.is_true_positive[mine] == 1
        image = detections[mine, 0].long()
        # false alarms count at the next hit: between hits a curve only falls
        before = hit.cumsum(0) - hit.long()
        hits = int(hit.sum())
        detected = torch.zeros(hits + 1, counts.shape[1], dtype=torch.double)
        detected.index_put_((before, image), torch.ones(len(image)).double(), accumulate=True)
        right = counts[:, image[hit]].cumsum(dim=1)  # (B, H)
        all_detected = counts @ detected[:hits].cumsum(dim=0).T
        total = counts[:, fair].sum(dim=1, keepdim=True)
        precision = right / all_detected.clamp(min=1)
        ap = average_precisions(right / total.clamp(min=1), precision, interpolation)
        aps[label] = ap.where(total[:, 0] > 0, torch.nan)
    return aps.nanmean(dim=0)


def average_precisions(recall: Tensor, precision: Tensor, interpolation: Interpolation) -> Tensor:
    """AP (B,) of curves (B, H) that have a point at every hit."""
    if recall.shape[1] == 0:
        return recall.new_zeros(len(recall))
    if interpolation == "11point":
        best = [precision.where(recall >= point, 0.0).amax(dim=1) for point in RECALL_POINTS]
        return torch.stack(best).mean(dim=0)
    envelope = precision.flip(1).cummax(dim=1).values.flip(1)
    step = torch.diff(recall, dim=1, prepend=recall.new_zeros(len(recall), 1))
    return (step * envelope).sum(dim=1)
