"""Training of OverFeat's detector: many places of an image at a time, negatives on the fly (5)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from detection.boxes import box_iou
from detection.data.module import DataModule
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.box_codes import Loss, box_loss
from detection.localization.images_stage import ImagesStage
from detection.localization.training_views import ViewedImage, training_views
from detection.matching import OBJECT, Matcher, Matches, drawn
from detection.overfeat.detector import OverFeatDetector, nearest
from detection.overfeat.options import OverFeatOptions
from detection.runtime.distributed import is_first_process
from detection.training.schedules import OptimizerFactory

log = logging.getLogger(__name__)

Negatives = Literal["random", "offending"]


@dataclass(frozen=True, kw_only=True)
class SpatialOptions(OverFeatOptions):
    """OverFeat's training of its detector, as far as the paper tells it; see `OverFeatOptions` too.

    Attributes:
        matcher: which windows are objects and background; the paper does not say. An object that no
            window fits so well has the one that fits it best (see `with_best`).
        positives_per_image: at most so many windows on objects.
        negatives_per_image: "a few interesting negative examples per image" (5).
        negatives: "random", or the "offending" ones, which look most like an object (5).
        pool: of so many random negatives the most offending are taken; None: of all.
        loss: of boxes, see `box_loss`.
        box_weight: of it beside the classes'.
        optimizer: classification's (3.1) at a rate of ours, for the paper names no other.
        batch_size: see `OverFeatOptions`.
        dropout: 3.1.
        backpropagate: see `OverFeatOptions`.
    """

    matcher: Matcher = Matcher(0.5, 0.0, 0.3)
    positives_per_image: int = 16
    negatives_per_image: int = 48
    negatives: Negatives = "offending"
    pool: int | None = None
    loss: Loss = "l2"
    box_weight: float = 1.0
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.6, weight_decay=1e-5)
    batch_size: int = 4
    dropout: float = 0.5
    backpropagate: bool = True

    def stage(
        self, model: OverFeatDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "SpatialStage":
        """The stage that trains so."""
        return SpatialStage(model, data, evaluator, seed, options=self)


class Places(NamedTuple):
    """Windows that a step learns from.

    Attributes:
        rows: (R, D) pooled features.
        below: (R, D) those of the same places at the scale below.
        labels: (R,) classes, C for background; on the CPU.
        windows: (R, 4) in pixels of the image.
        boxes: (R, 4) of the objects; of background the window's own.
    """

    rows: Tensor
    below: Tensor
    labels: Tensor
    windows: Tensor
    boxes: Tensor


class SpatialStage(ImagesStage):
    """Learns classes, background and boxes from several places of each image.

    Negatives are chosen in the step, among the windows of the image at hand, so that no
    bootstrapping passes are needed (5).

    Args:
        model: that learns.
        data: with objects.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: there is no object to learn.
    """

    name = "detect"
    model: OverFeatDetector
    options: SpatialOptions

    def __init__(
        self,
        model: OverFeatDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        *,
        options: SpatialOptions,
    ) -> None:
        split = data.split("train")
        if split.num_objects == 0:
            raise UserError(f"data={data.name}: no training image has an object")
        if not (model.backbone.pretrained or options.backpropagate):
            raise UserError(
                "the convolutions are random and do not learn: give backbone.weights=, or set "
                "model.stages.detect.backpropagate=true"
            )
        if model.backbone.pretrained and is_first_process():
            log.info("the features start from those of backbone.weights")
        # where not all objects are annotated, nothing is surely background
        self.exhaustive = frozenset(split.searched)
        rows = np.array(
            [n for n in range(len(split)) if n in self.exhaustive or len(split.gt(n).labels)],
            np.int64,
        )
        images = training_views(data, rows, model.backbone, model.windows.pooling.span, options)
        super().__init__(model, data, evaluator, seed, images=images, options=options)
        self.store = images.store

    def learns(self) -> Sequence[nn.Module]:
        """Its fc layers, or all."""
        return self.model.learnable(self.options.backpropagate)

    def training_step(self, batch: list[ViewedImage], batch_idx: int) -> Tensor:
        """Cross-entropy over the classes and background, and the loss of the boxes."""
        parts = [self.places_of(image) for image in batch]
        rows, below, labels, windows, boxes = (
            torch.cat(column) for column in zip(*parts, strict=True)
        )
        model, options = self.model, self.options
        count = len(rows)
        both = torch.cat([rows, below]) if model.context else rows
        hidden = model.head.layers(both, dropout=options.dropout)
        logits = model.logits(hidden[:count], hidden[-count:]).float()
        objects = torch.nonzero(labels < model.num_classes)[:, 0].to(self.device)
        labels = labels.to(self.device)
        of_classes = F.cross_entropy(logits, labels)
        said = model.said(
            model.regressor.layers(rows[objects], dropout=options.dropout), labels[objects]
        ).float()
        of_boxes = box_loss(said, windows[objects], boxes[objects], model.code, options.loss)
        self.log("detect/class_loss", of_classes, prog_bar=True, batch_size=count)
        self.log("detect/box_loss", of_boxes, prog_bar=True, batch_size=count)
        loss = of_classes + options.box_weight * of_boxes
        return self.check_finite(loss, self.names(batch))

    def places_of(self, image: ViewedImage) -> Places:
        """The windows of an image that are learnt from, chosen on the CPU as far as numbers are."""
        model, options = self.model, self.options
        with torch.set_grad_enabled(options.backpropagate):
            maps = self.store.maps(image, model.maps)
        # in the mirrored image, where all of its scales agree
        frames = [frame._replace(mirrored=False) for frame in image.frames]
        by_scale = [
            frame.to_original(model.windows.boxes(m.shape[2:]))
            for m, frame in zip(maps, frames, strict=True)
        ]
        gt = self.data.split("train").gt(image.index)
        first = image.frames[0]
        gt_boxes = frames[0].to_original(first.to_view(gt.boxes))  # mirrored, if the views are
        windows = torch.cat(by_scale)
        matches = with_best(options.matcher(windows, gt_boxes), windows, gt_boxes)
        generator = np.random.default_rng(image.seed)
        chosen_objects = drawn(matches.is_object, options.positives_per_image, generator)
        offending = options.negatives == "offending"
        most = options.pool if offending else options.negatives_per_image
        is_background = matches.is_background & (image.index in self.exhaustive)
        background = drawn(is_background, most, generator)
        if offending:
            background = self.most_offending(maps, by_scale, background)
        places = torch.cat([chosen_objects, background])
        labels = torch.full((len(places),), model.num_classes)
        boxes = windows[places]
        if len(chosen_objects):
            which = matches.gt[chosen_objects]
            labels[: len(which)] = gt.labels[which]
            boxes = torch.cat([gt_boxes[which], boxes[len(which) :]])
        rows, below = self.features(maps, by_scale, places)
        device = self.device
        return Places(rows, below, labels, windows[places].to(device), boxes.to(device))

    def features(
        self, maps: Sequence[Tensor], by_scale: Sequence[Tensor], places: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Pooled features (R, D) of places (R,) counted over all scales, and of those below.

        The two come back in the order of the places.
        """
        model = self.model
        starts = np.cumsum([0, *(len(windows) for windows in by_scale)])
        rows, below, order = [], [], []
        for number, windows in enumerate(by_scale):
            start, end = int(starts[number]), int(starts[number + 1])
            mine = torch.nonzero((places >= start) & (places < end))[:, 0]
            here = places[mine] - start
            order.append(mine)
            rows.append(model.windows.rows(maps[number], here.to(self.device)))
            if model.context:
                lower = max(number - 1, 0)
                there = nearest(windows[here], by_scale[lower]) if number else here
                below.append(model.windows.rows(maps[lower], there.to(self.device)))
        back = torch.cat(order).argsort().to(self.device)
        own = torch.cat(rows)[back]
        return own, torch.cat(below)[back] if model.context else own[:0]

    @torch.no_grad()
    def most_offending(
        self, maps: Sequence[Tensor], by_scale: Sequence[Tensor], background: Tensor
    ) -> Tensor:
        """Of windows on background those that look most like an object to the model of now."""
        count = self.options.negatives_per_image
        if len(background) <= count:
            return background
        rows, below = self.features(maps, by_scale, background)
        hidden = self.model.head.layers(rows)
        lower = self.model.head.layers(below) if self.model.context else hidden
        probabilities = self.model.logits(hidden, lower).float().softmax(dim=1)
        worst = probabilities[:, -1].topk(count, largest=False).indices
        return background[worst.cpu()]


def with_best(matches: Matches, windows: Tensor, gt_boxes: Tensor) -> Matches:
    """The same matches; a ground truth without a window has the one that fits it best.

    Windows of one size that hold a small object whole overlap it alike: of these the one whose
    centre is nearest. (All of them, as anchors are given out, would be hundreds.)
    """
    kind, gt = matches.kind.clone(), matches.gt.clone()
    taken = set(gt[matches.is_object].tolist())
    lonely = [n for n in range(len(gt_boxes)) if n not in taken]
    if lonely:
        boxes = gt_boxes[lonely]
        overlap = box_iou(windows, boxes)  # (P, L)
        centres = [(b[:, :2] + b[:, 2:]) / 2 for b in (windows, boxes)]
        away = torch.cdist(centres[0], centres[1])
        is_best = (overlap >= overlap.amax(dim=0) - 1e-6) & (overlap > 0)
        chosen = away.where(is_best, torch.inf).argmin(dim=0)
        seen = is_best.any(dim=0)
        kind[chosen[seen]] = OBJECT
        gt[chosen[seen]] = torch.tensor(lonely)[seen]
    return Matches(gt, kind, matches.iou)
