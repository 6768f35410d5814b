"""The region-based detector: features of proposals, scores, boxes, suppression."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.boxes import clip_boxes_to_image, decode
from detection.combine.nms import Detections, Suppression
from detection.proposals.selective_search import SelectiveSearch

Layer = Literal["pool5", "fc6", "fc7"]
LAYERS: tuple[Layer, ...] = ("pool5", "fc6", "fc7")
Scoring = Literal["svm", "softmax"]


class RegionFeatures(Protocol):
    """What a method brings: what to keep of an image, and the features of windows in it."""

    out_features: int

    def fc_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """fc6, which reads the features, and fc7."""
        ...

    def settings(self) -> str:
        """All settings that features depend on beside weights: for the names of caches."""
        ...

    def prepare(self, image: Tensor) -> list[Tensor]:
        """What is computed once for a (3, H, W) image."""
        ...

    def pool(self, prepared: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (R, out_features) of (R, 4) windows."""
        ...


class RegionDetector(nn.Module):
    """Proposals → features → SVM (or softmax) scores and regressed boxes → detections.

    Scores come from the softmax until the SVMs are learnt, and boxes are the proposals until the
    box regressors are.

    Args:
        features: of windows; also an `nn.Module`.
        num_classes: C, without background.
        layer: what the SVMs read.
        scoring: "svm", or "softmax" of the fine-tuned network (R-CNN, appendix B).
        suppression: NMS and limits.
        min_scores: for each scoring, the least score of a detection.
        search: finds proposals where a caller brings none.
        precision: of inference: "float32" or "bfloat16".
        suppress_first: suppress among the proposals too, before their boxes are regressed, as
            R-CNN's original does on ILSVRC.
    """

    learnt: Tensor

    def __init__(
        self,
        features: Any,
        num_classes: int,
        *,
        layer: Layer,
        scoring: Scoring,
        suppression: Suppression,
        min_scores: dict[str, float],
        search: SelectiveSearch,
        precision: Literal["float32", "bfloat16"],
        suppress_first: bool = False,
    ) -> None:
        super().__init__()
        self.features = features
        self.num_classes = num_classes
        self.fc6, self.fc7 = features.fc_layers()
        self.classifier = nn.Linear(self.fc7.out_features, num_classes + 1)
        self.layer: Layer = layer
        self.svm = nn.Linear(self.width(layer), num_classes)
        self.box_regressor = nn.Linear(self.fc6.in_features, 4 * num_classes)
        self.register_buffer("learnt", torch.zeros(2, dtype=torch.bool))  # SVMs, box regressors
        self.scoring: Scoring = scoring
        self.suppression = suppression
        self.min_scores = min_scores
        self.search = search
        self.precision = precision
        self.suppress_first = suppress_first
        nn.init.normal_(self.classifier.weight, std=0.01)  # SPP-net, section 4.1
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self, images: Sequence[Tensor], proposals: Sequence[Tensor] | None = None
    ) -> list[Detections]:
        """Detections of each image, best first.

        Args:
            images: (3, H, W) RGB tensors, uint8, or floats in [0, 1]; sizes may differ.
            proposals: (P, 4) boxes for each image; searched for where None.
        """
        if proposals is None:
            proposals = [self.propose(image) for image in images]
        return [self.detect(i, p) for i, p in zip(images, proposals, strict=True)]

    def propose(self, image: Tensor) -> Tensor:
        """Proposals of an image, (P, 4)."""
        pixels = image if not image.is_floating_point() else (image * 255).round()
        array = pixels.byte().permute(1, 2, 0).cpu().numpy()
        return torch.from_numpy(self.search(array))

    @torch.no_grad()
    def detect(self, image: Tensor, proposals: Tensor) -> Detections:
        """Detections of one image among its proposals."""
        size = (int(image.shape[1]), int(image.shape[2]))
        boxes = proposals.to(image.device)
        if len(boxes) == 0:
            return empty_detections(image.device)
        with self.autocast(image.device):
            pooled = self.features.pool(self.features.prepare(image), boxes, size)
            scores = self.score(pooled)
            moved = self.move(pooled, boxes, size)
        min_score = self.min_scores[self.scored_by]
        if self.suppress_first:
            still = boxes[:, None].expand_as(moved)
            kept = self.suppression.survivors(still, scores, min_score)
            scores = torch.full_like(scores, -torch.inf).index_put(kept, scores[kept])
        return self.suppression(moved, scores, min_score)

    def autocast(self, device: torch.device) -> torch.autocast:
        """The precision of inference, whatever the trainer's."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def width(self, layer: Layer) -> int:
        """Numbers in a feature of a layer."""
        sizes = (self.fc6.in_features, self.fc6.out_features, self.fc7.out_features)
        return sizes[LAYERS.index(layer)]

    def layers(
        self, features: Tensor, upto: Layer = "fc7", dropout: float = 0.0, since: Layer = "pool5"
    ) -> Tensor:
        """Activations behind a layer, after its ReLU, from those behind an earlier one."""
        for name in LAYERS[LAYERS.index(since) + 1 : LAYERS.index(upto) + 1]:
            fc = self.fc6 if name == "fc6" else self.fc7
            features = F.dropout(F.relu(fc(features)), dropout)
        return features

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) outputs of the classifier, background last."""
        return self.classifier(self.layers(pooled, dropout=dropout))

    @property
    def scored_by(self) -> Scoring:
        """What gives the scores at present."""
        return "svm" if self.scoring == "svm" and bool(self.learnt[0]) else "softmax"

    def score(self, pooled: Tensor) -> Tensor:
        """(R, C) float32 scores of regions from their pooled features."""
        if self.scored_by == "svm":
            return self.svm(self.layers(pooled, self.layer)).float()
        return self.logits(pooled).float().softmax(dim=1)[:, :-1]

    def move(self, pooled: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(R, C, 4) boxes, regressed for each class and clipped to the image."""
        if not self.learnt[1]:
            return boxes[:, None].expand(-1, self.num_classes, -1)
        deltas = self.box_regressor(pooled).float().reshape(-1, self.num_classes, 4)
        return clip_boxes_to_image(decode(boxes[:, None], deltas), size)


def empty_detections(device: torch.device) -> Detections:
    """No detection."""
    return {
        "boxes": torch.zeros(0, 4, device=device),
        "scores": torch.zeros(0, device=device),
        "labels": torch.zeros(0, dtype=torch.long, device=device),
    }
