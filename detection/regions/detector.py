"""The region-based detector: features of proposals, scores, boxes, suppression."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.head import FullyConnected, Head, Layer, softmax_output
from detection.boxes import clip_boxes_to_image, decode
from detection.combine.nms import NMS, Combination, Detections, no_detections, suppressing
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.errors import UserError
from detection.proposals.selective_search import SelectiveSearch
from detection.proposals.source import ProposalSource
from detection.regions.advice import Advising, tell_advice
from detection.regions.parts import parts_of
from detection.regions.proposing import find_proposals
from detection.runtime.stopwatch import timed
from detection.training.model import Model
from detection.training.part import Entry, Part

Scoring = Literal["svm", "softmax"]
CLASSIFIER, SVM, BOX_REGRESSOR = "classifier", "svm", "box_regressor"
MIN_SCORES: dict[str, float] = {"svm": -1.5, "softmax": 0.001}


class RegionFeatures(Advising, Protocol):
    """What a method brings: what to keep of an image, and the features of boxes in it.

    It is also an `nn.Module`.
    """

    backbone: Backbone
    out_features: int

    def fully_connected(self) -> FullyConnected:
        """fc6, which reads the features, and fc7, for the detector's head."""
        ...

    def settings(self) -> str:
        """All settings that features depend on beside weights: for the names of caches."""
        ...

    def prepare(self, image: Tensor) -> list[Tensor]:
        """What is computed once for a (3, H, W) image."""
        ...

    def pool(self, prepared: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (R, out_features) of (R, 4) boxes."""
        ...

    def entry(self) -> Entry:
        """Where a network of regions begins, for other programs."""
        ...

    def from_entry(self, given: Tensor) -> Tensor:
        """Features (R, out_features) of what goes in there."""
        ...

    def distinct(
        self, prepared: list[Tensor], boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Of (R, 4) boxes those (D,) whose features differ, and which of them (R,) each has."""
        ...


class RegionDetector(Model):
    """Proposals → features → SVM (or softmax) scores and regressed boxes → detections.

    Scores come from the softmax until the SVMs are fitted, and boxes are the proposals until the
    box regressors are.

    Args:
        features: of boxes (`RegionFeatures`).
        num_classes: C, without background.
        layer: what the SVMs read (R-CNN, table 2; SPP-net, table 6).
        scoring: "svm", or "softmax" of the fine-tuned network (R-CNN, appendix B).
        combine: from candidates to detections: NMS and limits, voting, accumulation.
        min_scores: for each scoring, the least score of a candidate (spp_test.m, rcnn_test.m).
        search: finds proposals where a caller brings none; a network is learnt in a stage.
        published_boxes: for each split a `.mat` file of the original authors' proposals, to be
            taken instead of searching; None: search.
        precision: of inference: "float32" or "bfloat16"; SVM margins are float32 in any case.
        suppress_first: suppress among the proposals too, before their boxes are regressed, as
            R-CNN's original does on ILSVRC.
        box_rounds: how often a box is scored and moved (R-CNN, appendix C: again from where it was
            moved to "does not improve results").
    """

    is_fitted: Tensor

    tasks = ("detection",)

    def __init__(
        self,
        features: nn.Module,
        num_classes: int,
        *,
        layer: Layer = "fc7",
        scoring: Scoring = "svm",
        combine: Combination = NMS(),
        min_scores: Mapping[str, float] = MIN_SCORES,
        search: ProposalSource = SelectiveSearch(),
        published_boxes: Mapping[str, str | None] | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
        suppress_first: bool = False,
        box_rounds: int = 1,
    ) -> None:
        super().__init__()
        self.features = features
        self.num_classes = num_classes
        self.head = Head(
            self.regions.out_features,
            self.regions.fully_connected(),
            {
                CLASSIFIER: ("fc7", num_classes + 1),  # background last
                SVM: (layer, num_classes),
                BOX_REGRESSOR: ("pool5", 4 * num_classes),
            },
        )
        softmax_output(self.head.output(CLASSIFIER))
        self.layer: Layer = layer
        # SVMs, box regressors: part of the state, so that a checkpoint says what was learnt
        self.register_buffer("is_fitted", torch.zeros(2, dtype=torch.bool))
        self.scoring: Scoring = scoring
        self.combine = combine
        self.min_scores = min_scores
        self.search = search
        self.prepared = ""  # identity of the search whose boxes the data has
        self.published_boxes = published_boxes or {}
        self.precision = precision
        self.first = suppressing(combine) if suppress_first else None
        if box_rounds < 1:
            raise UserError(f"model.box_rounds={box_rounds}: boxes are scored once at least")
        self.box_rounds = box_rounds

    @property
    def regions(self) -> RegionFeatures:
        """The features, by their contract."""
        return self.features  # type: ignore[return-value]

    def classifying_layers(self, *below: nn.Module) -> list[nn.Module]:
        """The layers of the head that a class depends on, after those that stand below it."""
        parts = (*below, self.head.fc6, self.head.fc7, self.head.output(CLASSIFIER))
        return [part for part in parts if part is not None]

    # The contract of a model

    def prepare(self, data: DataModule) -> None:
        """Give every split that is read its proposals, computed where they are not on disk.

        Raises:
            UserError: an image cannot be read, the disk is full, or a `.mat` file lacks images.
        """
        super().prepare(data)
        if not self.search.is_ready:  # before the stage that learns it
            return
        identity = self.search.identity()
        if identity == self.prepared and all(s.store is not None for s in data.splits.values()):
            return
        self.prepared = identity
        find_proposals(data, self.search, self.published_boxes)
        tell_advice(self.regions, data)

    def sample(self, image: Tensor, name: str = "", index: int = 0) -> Sample:
        """See `Model.sample`; with proposals."""
        sample = super().sample(image, name, index)
        return sample if self.search.is_network else replace(sample, proposals=self.propose(image))

    def proposals_of(self, sample: Sample) -> Tensor:
        """Those that a sample brings; a network's anew: members of an ensemble have their own."""
        return self.propose(sample.image) if self.search.is_network else sample.proposals

    def predict(self, batch: Sequence[Sample]) -> list[Detections]:
        """Detections of each image among its proposals, best first."""
        return [self.detect(sample.image, self.proposals_of(sample)) for sample in batch]

    def candidates(self, batch: Sequence[Sample]) -> list[Detections]:
        """All scored boxes of each image, before they are suppressed."""
        return [self.score_boxes(sample.image, self.proposals_of(sample)) for sample in batch]

    @property
    def combination(self) -> Combination:
        """The union of several detectors' boxes is suppressed as one (SPP-net, 4.4)."""
        return self.combine

    def interface(self) -> dict[str, object]:
        """Scores of one kind, on the same proposals, but for networks that bring their own."""
        search = None if self.search.is_network else self.search
        proposals = {"search": search, "published_boxes": self.published_boxes}
        return super().interface() | {"scoring": self.scoring} | proposals

    def parts(self) -> dict[str, Part]:
        """See `Model.parts`."""
        return parts_of(self)

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
        """Proposals of an image, (P, 4); a network's in float32, as it is trained."""
        pixels = image if not image.is_floating_point() else (image * 255).round()
        array = pixels.byte().permute(1, 2, 0).cpu().numpy()
        with torch.autocast(image.device.type, enabled=False), timed("proposals", image.device):
            return torch.from_numpy(self.search(array))

    # How it detects

    def detect(self, image: Tensor, proposals: Tensor) -> Detections:
        """Detections of one image among its (P, 4) proposals, best first."""
        candidates = self.score_boxes(image, proposals)
        with timed("suppression", image.device):
            return self.combine(candidates)

    @torch.no_grad()
    def score_boxes(self, image: Tensor, proposals: Tensor) -> Detections:
        """Every pair of proposal and class that scores enough, with its box, before suppression."""
        size = (int(image.shape[1]), int(image.shape[2]))
        boxes = proposals.to(image.device)
        if len(boxes) == 0:
            return no_detections(image.device)
        with self.autocast(image.device):
            # as SPP-net, table 6, counts: up to pool5, whose regions they are
            with timed("conv", image.device):
                prepared = self.regions.prepare(image)
                # what several boxes share is pooled, and goes through the layers, once
                rows, which = self.regions.distinct(prepared, boxes, size)
                pooled = self.regions.pool(prepared, boxes[rows], size)
            with timed("fc", image.device):
                scores = self.score(pooled)[which]  # (R, C)
                moved = self.move(pooled, which, boxes, size)  # (R, C, 4)
        # a box may stay for several classes: pairs, not each box's best class
        region, label = torch.nonzero(scores > self.min_scores[self.scored_by], as_tuple=True)
        score = scores[region, label].float()
        if self.first is not None:  # among the proposals as they are
            still = {"boxes": boxes[region].float(), "scores": score, "labels": label}
            kept = self.first.survivors(still).sort().values
            region, label, score = region[kept], label[kept], score[kept]
        found = {"boxes": moved[region, label].float(), "scores": score, "labels": label}
        for _ in range(self.box_rounds - 1 if self.moves_boxes else 0):
            found = self.again(prepared, found, size)
        return found

    def again(self, prepared: list[Tensor], found: Detections, size: tuple[int, int]) -> Detections:
        """Boxes scored and moved once more from where they are, each for its class alone."""
        boxes, label = found["boxes"], found["labels"]
        pair = torch.arange(len(label), device=label.device)
        with self.autocast(boxes.device):
            with timed("conv", boxes.device):
                rows, which = self.regions.distinct(prepared, boxes, size)
                pooled = self.regions.pool(prepared, boxes[rows], size)
            with timed("fc", boxes.device):
                score = self.score(pooled)[which, label].float()
                moved = self.move(pooled, which, boxes, size)[pair, label].float()
        kept = score > self.min_scores[self.scored_by]
        return {"boxes": moved[kept], "scores": score[kept], "labels": label[kept]}

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """(R, C + 1) outputs of the classifier, background last."""
        return self.head(pooled, CLASSIFIER, dropout)  # type: ignore[no-any-return]

    @property
    def scored_by(self) -> Scoring:
        """What gives the scores at present."""
        return "svm" if self.scoring == "svm" and bool(self.is_fitted[0]) else "softmax"

    def score(self, pooled: Tensor, by: Scoring | None = None) -> Tensor:
        """(R, C) float32 scores of regions from their pooled features.

        Args:
            pooled: (R, out_features).
            by: what gives them; None: see `scored_by`.
        """
        if (by or self.scored_by) == "softmax":
            return self.logits(pooled).float().softmax(dim=1)[:, :-1]
        features = self.head.layers(pooled, self.layer).float()
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 would make ties
            return self.head.output(SVM)(features)  # type: ignore[no-any-return]

    def move(self, pooled: Tensor, which: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """(R, C, 4) boxes, regressed for each class and clipped to the image.

        Args:
            pooled: (D, out_features).
            which: (R,) whose of them each box has.
            boxes: (R, 4).
            size: height and width of the image.
        """
        if not self.moves_boxes:
            return boxes[:, None].expand(-1, self.num_classes, -1)
        return clip_boxes_to_image(decode(boxes[:, None], self.deltas(pooled)[which]), size)

    @property
    def moves_boxes(self) -> bool:
        """Whether box regressors are fitted."""
        return bool(self.is_fitted[1])

    def deltas(self, pooled: Tensor) -> Tensor:
        """(R, C, 4) float32 that `decode` takes, from pooled features.

        Whatever the scores read, regression is from pool5 (R-CNN, appendix C).
        """
        deltas: Tensor = self.head(pooled, BOX_REGRESSOR)
        return deltas.float().reshape(-1, self.num_classes, 4)
