"""A region proposal network with outputs for each class, as a localiser (ResNet, appendix C)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detection.boxes import clip_boxes_to_image
from detection.classification.classifier import Classifier, ImageFeatures
from detection.classification.views import ViewSet
from detection.combine.nms import Combination, Detections, concatenate
from detection.combine.voting import BoxVoting
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.localization.localizer import Localizer, Rank, Reading
from detection.localization.views import Frame, ScaledViews, check_scaled
from detection.report.page import Section
from detection.rpn.anchors import Anchors
from detection.rpn.head import RPNHead
from detection.rpn.pictures import rpn_sections


class PerClassRPN(Localizer):
    """Anchors at every place and scale, each with a score and a box for the classes asked for.

    Args:
        features: of the classifier.
        num_classes: C.
        views: one centre crop, or whole images at some scales ("dense").
        anchors: about every cell.
        side_px: shorter side of images that the classifier is trained on.
        hidden: see `RPNHead`.
        max_candidates: boxes of a class and view that are combined, the best.
        top_k: see `Localizer`.
        combine: see `Localizer`.
        rank: see `Localizer`; by default as the classifier ranks the classes.
        classes: see `Localizer`; None: the classifier on the same maps.
        class_views: see `Localizer`.
        precision: of inference.
    """

    views: ScaledViews

    def __init__(
        self,
        features: ImageFeatures,
        num_classes: int,
        *,
        views: ScaledViews,
        anchors: Anchors,
        side_px: int = 256,
        hidden: int | None = None,
        max_candidates: int = 300,
        top_k: int = 5,
        combine: Combination = BoxVoting(),
        rank: Rank = "classes",
        classes: str | Sequence[str] | None = None,
        class_views: ViewSet | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(
            num_classes, views, top_k=top_k, combine=combine, rank=rank, classes=classes,
            class_views=class_views,
        )  # fmt: skip
        self.precision = precision
        self.classifier = Classifier(features, num_classes, side_px=side_px, precision=precision)
        backbone = features.backbone
        check_scaled(views)
        views.bind(backbone, 1)
        self.anchors = anchors
        self.head = RPNHead(backbone.channels, len(anchors), num_classes, hidden)
        self.max_candidates = max_candidates

    def maps(self, images: Tensor) -> Tensor:
        """(B, C, h, w) maps of (B, 3, H, W) images."""
        backbone = self.classifier.features.backbone
        return backbone.maps(backbone.normalize(images))

    def anchor_boxes(self, maps: Tensor) -> Tensor:
        """(P · A, 4) anchors of a map, on the CPU."""
        return self.anchors.boxes(self.classifier.features.backbone.field, maps.shape[2:])

    @torch.no_grad()
    def read(self, sample: Sample) -> Reading:
        """See `Localizer.read`."""
        frames = self.views.frames(sample.size)
        seen, scores = [], []
        for view, frame in zip(sample.views[0], frames, strict=True):
            with self.autocast(view.device):
                maps = self.maps(view[None])
                logits = self.classifier.logits(self.classifier.features(maps))
                seen.append((frame, self.head.features(maps)))
            scores.append(logits[0].float().softmax(dim=0))
        mean = torch.stack(scores).mean(dim=0)

        def candidates(labels: Tensor) -> Detections:
            return concatenate([self.boxes(f, maps, labels, sample.size) for f, maps in seen])

        return Reading(mean, mean.topk(self.top_k).indices, candidates)

    def boxes(
        self, frame: Frame, features: Tensor, labels: Tensor, size: tuple[int, int]
    ) -> Detections:
        """The best boxes of each class (k,) in a view, in pixels of the image."""
        anchors = self.anchor_boxes(features).to(features.device)
        with self.autocast(features.device):
            found = self.head.best_boxes(features, labels, anchors, self.max_candidates)
        boxes = clip_boxes_to_image(frame.to_original(found["boxes"]), size)
        return {**found, "boxes": boxes}

    def sections(self, data: DataModule) -> list[Section]:
        """Anchors, and boxes on their way."""
        return rpn_sections(self, data)
