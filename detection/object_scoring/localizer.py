"""Object scoring: a class's scores on the squares of a grid say where it is."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from detection.boxes import clip_boxes_to_image
from detection.classification.classifier import Classifier, ImageFeatures
from detection.classification.views import ViewSet
from detection.combine.nms import NMS, Combination, Detections
from detection.data.module import DataModule
from detection.data.samples import Sample, Transform
from detection.errors import UserError
from detection.localization.box_codes import from_window
from detection.localization.localizer import Localizer, Reading
from detection.localization.views import SideBySide
from detection.object_scoring.pictures import score_sections
from detection.object_scoring.regressor import Normalization, ScoreRegressor
from detection.object_scoring.views import SquareCrops, SquareMap, SquareViews
from detection.proposals.squares import SquareGrid
from detection.report.page import Section
from detection.training.model import Model


class ObjectScoring(Localizer):
    """No box is ever predicted by a convolutional network: it classifies 140 squares of an image.

    Of its two networks one classifies images, and names the classes unless others do; the other,
    which starts as its copy and learns from crops of objects, scores the squares. A regressor reads
    the scores of one class.

    Args:
        features: of the image classifier.
        square_features: of the network that scores squares: the same, with weights of its own.
        num_classes: C.
        views: how squares are scored: cut out, or from one map.
        grid: of squares.
        side_px: shorter side of images that the classifier is trained on.
        background: the scoring network has one more output, for crops that show no object.
        hidden: outputs of the regressor's hidden layers.
        class_wise: room for a regressor of each class's own.
        normalization: of scores; see `ScoreRegressor`.
        top_k: see `Localizer`.
        combine: see `Localizer`; of one model there is one box a class.
        classes: see `Localizer`; None: the image classifier.
        class_views: see `Localizer`.
        precision: of inference.

    Raises:
        UserError: grid, views and network do not go together.
    """

    views: SquareViews
    is_started: Tensor

    def __init__(
        self,
        features: ImageFeatures,
        square_features: ImageFeatures,
        num_classes: int,
        *,
        views: SquareViews,
        grid: SquareGrid = SquareGrid(),
        side_px: int = 256,
        background: bool = False,
        hidden: Sequence[int] = (256,),
        class_wise: bool = True,
        normalization: Normalization = "standard",
        top_k: int = 5,
        combine: Combination = NMS(max_per_class=1),
        classes: str | Sequence[str] | None = None,
        class_views: ViewSet | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(
            num_classes, views, top_k=top_k, combine=combine, rank="classes", classes=classes,
            class_views=class_views,
        )  # fmt: skip
        self.precision = precision
        self.classifier = Classifier(features, num_classes, side_px=side_px, precision=precision)
        self.scorer = Classifier(
            square_features, num_classes + int(background), side_px=side_px, precision=precision
        )
        self.grid = grid
        if not isinstance(views, SquareCrops | SquareMap):
            raise UserError("object scoring looks at squares: scales=squares, squares_one_map")
        views.bind(grid, self.scorer)
        self.regressor = ScoreRegressor(len(grid), hidden, num_classes, class_wise, normalization)
        self.register_buffer("is_started", torch.tensor(False))

    @torch.no_grad()
    def start_scorer(self) -> None:
        """Begin the scoring network as a copy of the image classifier, once.

        An output for background begins as it was drawn.
        """
        if self.is_started:
            return
        own = self.scorer.state_dict()
        for key, value in self.classifier.state_dict().items():
            mine = own[key][: len(value)] if value.dim() else own[key]
            mine.copy_(value)
        self.is_started.fill_(True)

    @property
    def namer(self) -> Model:
        """Other classifiers, or the image classifier."""
        return super().namer or self.classifier

    @property
    def transform(self) -> Transform:
        """Squares, and the views of the classifier that names the classes."""
        return SideBySide(self.views, self.namer.transform)

    @torch.no_grad()
    def square_scores(self, sample: Sample) -> Tensor:
        """(K, C) scores before softmax of the squares of an image, background left out."""
        views = sample.views[0]
        with self.autocast(views[0].device):
            logits = self.views.logits(self.scorer, views)
        return logits.float()[:, : self.num_classes]

    @torch.no_grad()
    def read(self, sample: Sample) -> Reading:
        """See `Localizer.read`."""
        logits = self.square_scores(sample)
        highest = logits.softmax(dim=1).amax(dim=0)

        def candidates(labels: Tensor) -> Detections:
            boxes = self.boxes(logits[:, labels].T, labels, sample.size)
            return {"boxes": boxes, "scores": highest[labels], "labels": labels}

        return Reading(None, torch.zeros(0, dtype=torch.long, device=logits.device), candidates)

    def boxes(self, scores: Tensor, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """(k, 4) the boxes of classes in an image of some height and width.

        Args:
            scores: (k, K) of a class each on the squares.
            labels: (k,) of which.
            size: of the image.
        """
        frame = self.grid.rectangle(size).to(scores.device)
        with torch.autocast(scores.device.type, enabled=False):  # edges need all their bits
            said = self.regressor(scores.float(), labels)
        return clip_boxes_to_image(from_window(frame, said, "edges"), size)

    def interface(self) -> dict[str, object]:
        """Members' image classifiers look at the same views too."""
        return super().interface() | {"side_px": self.classifier.side_px}

    def sections(self, data: DataModule) -> list[Section]:
        """The scores of the squares as maps of heat, and the box that they come to."""
        return score_sections(self, data)
