"""A region proposal network with outputs for each class, as a localiser (ResNet, appendix C)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.boxes import clip_boxes_to_image, decode
from detection.classification.classifier import Classifier, ImageFeatures
from detection.combine.nms import Combination, Detections, concatenate
from detection.combine.voting import BoxVoting
from detection.data.samples import Sample
from detection.localization.localizer import Localizer, Rank, Reading
from detection.localization.views import Frame, ScaledViews
from detection.rpn.anchors import Anchors

OUTPUT_STD = 0.01  # of fresh outputs (py-faster-rcnn: train.prototxt)


class RPNHead(nn.Module):
    """Two sibling 1×1 convolutions: for each anchor and class a score and a box.

    With 1,000 classes and 9 anchors the boxes alone are 36,000 channels. Nothing here ever computes
    them all: the weights of the classes that are asked for are gathered first.

    Args:
        channels: of the map.
        anchors: A.
        num_classes: C.
        hidden: channels of a 3×3 convolution before them, as the class-agnostic RPN has (Ren et al.
            2015, 3.1); None: none, as appendix C tells.
    """

    def __init__(self, channels: int, anchors: int, num_classes: int, hidden: int | None) -> None:
        super().__init__()
        self.anchors, self.num_classes = anchors, num_classes
        self.hidden = nn.Conv2d(channels, hidden, 3, padding=1) if hidden else None
        width = hidden or channels
        self.score = nn.Conv2d(width, anchors * num_classes, 1)
        self.box = nn.Conv2d(width, anchors * num_classes * 4, 1)
        for layer in (self.hidden, self.score, self.box):
            if layer is not None:
                nn.init.normal_(layer.weight, std=OUTPUT_STD)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def features(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) that both outputs read."""
        return maps if self.hidden is None else F.relu(self.hidden(maps))

    def weights(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of some classes (k,): (A, k, D), (A, k), (A, k, 4, D), (A, k, 4)."""
        shape = (self.anchors, self.num_classes)
        score, box = self.score.weight.view(*shape, -1), self.box.weight.view(*shape, 4, -1)
        biases = self.score.bias.view(shape), self.box.bias.view(*shape, 4)  # type: ignore[union-attr]
        return score[:, labels], biases[0][:, labels], box[:, labels], biases[1][:, labels]

    def for_classes(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P · A, k) and box codes (P · A, k, 4) of classes (k,) on one map.

        Args:
            features: (1, D, h, w).
            labels: (k,).
        """
        score, score_bias, box, box_bias = self.weights(labels)
        rows = features[0].flatten(1).T  # (P, D)
        count = len(labels)
        logits = F.linear(rows, score.flatten(0, 1), score_bias.flatten())
        codes = F.linear(rows, box.flatten(0, 2), box_bias.flatten())
        return logits.reshape(-1, count), codes.reshape(-1, count, 4)

    def at(self, rows: Tensor, anchor: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R,) and box codes (R, 4) of single anchors, each of its own class.

        Args:
            rows: (R, D) features of the anchors' cells.
            anchor: (R,) which of the A.
            labels: (R,) classes.
        """
        number = anchor * self.num_classes + labels
        score = self.score.weight.flatten(1)[number]  # (R, D)
        box = self.box.weight.view(-1, 4, score.shape[1])[number]  # (R, 4, D)
        biases = self.score.bias[number], self.box.bias.view(-1, 4)[number]  # type: ignore[index, union-attr]
        logits = (score * rows).sum(dim=1) + biases[0]
        return logits, torch.einsum("rkd,rd->rk", box, rows) + biases[1]


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
        class_views: dict[str, Any] | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(
            num_classes, views, top_k=top_k, combine=combine, rank=rank, classes=classes,
            class_views=class_views,
        )  # fmt: skip
        self.precision = precision
        self.classifier = Classifier(features, num_classes, side_px=side_px, precision=precision)
        backbone = features.backbone
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
        with self.autocast(features.device):
            logits, codes = self.head.for_classes(features, labels)
        scores = logits.float().sigmoid()  # (N, k)
        best = scores.topk(min(self.max_candidates, len(scores)), dim=0).indices.T  # (k, n)
        anchors = self.anchor_boxes(features).to(features.device)
        column = torch.arange(len(labels), device=labels.device)[:, None]
        found = decode(anchors[best], codes.float()[best, column]).flatten(0, 1)
        return {
            "boxes": clip_boxes_to_image(frame.to_original(found), size),
            "scores": scores[best, column].flatten(),
            "labels": labels.repeat_interleave(best.shape[1]),
        }
