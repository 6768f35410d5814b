"""Test images with right, false and missed boxes told apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.data.detection import DetectionSplit
from detection.disk.images import read_image
from detection.metrics.voc_ap import MatchedDetections, PRCurve
from detection.report.drawing import Outline, draw_outline, drawable

COLOURS = {"right": (34, 160, 84), "false": (222, 57, 57), "missed": (245, 166, 35)}
SIDE_PX = 420  # longer side of a picture
LEAST_PRECISION = 0.5  # of detections in the last group (R-CNN, figures 8 to 11)


MatchRule = Callable[[Tensor, Tensor], MatchedDetections]  # of detections and ground truths


@dataclass(frozen=True)
class Shown:
    """One box to draw: kind ("right", "false" or "missed"), label, score (nan if missed), xyxy.

    The score may be a precision, see `boxes_at_precision`.
    """

    kind: str
    label: int
    score: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """A test image with its boxes.

    Attributes:
        image_id: its name.
        pixels: (H, W, 3) RGB with boxes drawn.
        plain: (H, W, 3) RGB without.
        scale: of both, against the original.
        boxes: what was drawn, in the original's pixels.
        quality: F1 of its detections.
    """

    image_id: str
    pixels: NDArray[np.uint8]
    plain: NDArray[np.uint8]
    scale: float
    boxes: list[Shown]
    quality: float


def make_gallery(
    dataset: DetectionSplit,
    tables: tuple[Tensor, Tensor],
    curves: Sequence[PRCurve],
    match: MatchRule,
    class_names: Sequence[str],
    count: int,
) -> dict[str, list[Picture]]:
    """The best, the worst and some random images, `count` of each.

    Detections are shown from the score on at which their class's F1 is best; of the random images
    once more those of a precision above a half, which stands beside them (R-CNN, figures 8 to 11).
    """
    shown = boxes_to_show(len(dataset), tables, curves, match)
    sure = boxes_at_precision(len(dataset), tables, curves, match)
    quality = np.array([f1(boxes) for boxes in shown])
    size = np.array([len(boxes) for boxes in shown])
    busy = np.flatnonzero(size > 0)
    by_quality = busy[np.lexsort((-size[busy], -quality[busy]))]
    rng = np.random.default_rng(0)
    groups = {
        "best": by_quality[:count],
        "worst": by_quality[::-1][:count],
        "random": rng.permutation(len(dataset))[:count],
    }
    drawn = {
        name: [picture(dataset, int(i), shown[int(i)], class_names) for i in chosen]
        for name, chosen in groups.items()
    }
    again = [picture(dataset, int(i), sure[int(i)], class_names) for i in groups["random"]]
    return drawn | {"precision above 0.5": again}


def boxes_to_show(
    images: int,
    tables: tuple[Tensor, Tensor],
    curves: Sequence[PRCurve],
    match: MatchRule,
) -> list[list[Shown]]:
    """For each image its right, false and missed boxes."""
    detections, _ = tables
    least = torch.tensor([best_f1_score(curve) for curve in curves], dtype=torch.double)
    return judged(images, tables, detections[:, 2] >= least[detections[:, 1].long()], match)


def boxes_at_precision(
    images: int,
    tables: tuple[Tensor, Tensor],
    curves: Sequence[PRCurve],
    match: MatchRule,
) -> list[list[Shown]]:
    """For each image its boxes where the detector's precision is above a half; missed ones too.

    Their scores are the precision of their class down to their score.
    """
    detections, _ = tables
    precisions = torch.zeros(len(detections), dtype=torch.double)
    for label, curve in enumerate(curves):
        mine = detections[:, 1] == label
        ranks = torch.searchsorted(-curve.scores, -detections[mine, 2], right=True) - 1
        none = ranks < 0  # above the first that counts: a hit on a difficult object
        precision = curve.precision[ranks.clamp(min=0)] if len(curve.precision) else ranks.double()
        precisions[mine] = torch.where(none, 1.0, precision.double())
    return judged(images, tables, precisions > LEAST_PRECISION, match, precisions)


def judged(
    images: int,
    tables: tuple[Tensor, Tensor],
    wanted: Tensor,
    match: MatchRule,
    scores: Tensor | None = None,
) -> list[list[Shown]]:
    """For each image its detections as right or false, and the objects that none of them has found.

    Args:
        images: their number.
        tables: detections and objects, as `match` takes them.
        wanted: (N,), which detections are shown; all are matched, by their scores.
        match: see `MatchRule`.
        scores: (N,) to be shown in place of their own.
    """
    detections, gt = tables
    _, is_true_positive, _ = match(detections, gt)
    _, _, gt_is_found = match(detections[wanted & (is_true_positive == 1)], gt)
    result: list[list[Shown]] = [[] for _ in range(images)]
    own = detections[:, 2] if scores is None else scores
    columns = (detections[wanted], is_true_positive[wanted], own[wanted])
    for row, right, score in zip(*(column.tolist() for column in columns), strict=True):
        if right >= 0:
            kind = "right" if right else "false"
            result[int(row[0])].append(Shown(kind, int(row[1]), score, tuple(row[3:])))
    for row, hit in zip(gt.tolist(), gt_is_found.tolist(), strict=True):
        if not hit and not row[2]:
            result[int(row[0])].append(Shown("missed", int(row[1]), np.nan, tuple(row[3:])))
    return result


def best_f1_score(curve: PRCurve) -> float:
    """The score of a class from which on its F1 is best; inf where there is no detection."""
    if curve.num_gt == 0 or len(curve.scores) == 0:
        return float("inf")
    p, r = curve.precision, curve.recall
    return float(curve.scores[int((2 * p * r / (p + r).clamp(min=1e-9)).argmax())])


def f1(boxes: Sequence[Shown]) -> float:
    """F1 of an image's boxes; 1 for an image without any."""
    right = sum(b.kind == "right" for b in boxes)
    return 2 * right / (len(boxes) + right) if boxes else 1.0


def picture(
    dataset: DetectionSplit, index: int, boxes: list[Shown], class_names: Sequence[str]
) -> Picture:
    """An image with boxes drawn."""
    pixels = read_image(dataset.paths[index])
    scale = SIDE_PX / max(pixels.shape[:2])
    size = [max(1, round(side * scale)) for side in (pixels.shape[1], pixels.shape[0])]
    plain = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    canvas = plain.copy()
    for box in sorted(boxes, key=lambda b: b.kind == "right"):
        draw_box(canvas, box, scale, drawable(class_names[box.label], box.label))
    return Picture(dataset.image_ids[index], canvas, plain, scale, boxes, f1(boxes))


def draw_box(canvas: NDArray[np.uint8], shown: Shown, scale: float, name: str) -> None:
    """A rectangle (dashed if missed) with a caption on a ground of its colour."""
    text = name if np.isnan(shown.score) else f"{name} {shown.score:.2f}"
    outline = Outline(shown.box, COLOURS[shown.kind], text, dashed=shown.kind == "missed")
    draw_outline(canvas, outline, scale)
