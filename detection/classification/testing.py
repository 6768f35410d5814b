"""The test of a classifier: every image once, on any set of views."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from detection.classification.classifier import Classifier
from detection.classification.feature_svm import FeatureSVM
from detection.classification.views import ViewSet
from detection.combine.ensemble import Committee
from detection.data.classification_data import ClassificationData, Viewed, as_tensor
from detection.errors import UserError
from detection.metrics.top_k import TopKErrors
from detection.metrics.voc_ap import PRCurve
from detection.metrics.voc_classification import VOCClassificationAP
from detection.training.stage import Stage

BATCH = 16  # images whose views go through the network together


class ClassificationTest(Stage):
    """Guesses the class of each test image.

    Args:
        detector: a classifier, or a committee of several.
        data: to test on.
        seed: see `Stage`.
        views: to look at each image.
    """

    data: ClassificationData
    detector: Committee

    def __init__(
        self, detector: nn.Module, data: ClassificationData, seed: int = 0, *, views: ViewSet
    ) -> None:
        members = list(detector.members) if isinstance(detector, Committee) else [detector]
        super().__init__(Committee(members), data, seed)  # type: ignore[arg-type]
        first = members[0]
        assert isinstance(first, Classifier)
        refuse_other_inputs(members)
        views.fit(data.side_px, first.features.backbone)
        self.views = views
        several = data.indices["test"].multi_label
        self.errors = None if several else TopKErrors(first.num_classes)
        self.precision = VOCClassificationAP(first.num_classes) if several else None
        self.table: dict[str, torch.Tensor] = {}
        self.confusion = torch.zeros(0, 0, dtype=torch.long)
        self.curves: list[PRCurve] = []
        self.figures: dict[str, float] = {}

    def test_dataloader(self) -> DataLoader[list[Viewed]]:
        """The images of the test split."""
        return self.data.view_loader("test", self.views, BATCH)

    def test_step(self, batch: list[Viewed], index: int) -> None:
        """Guess the classes of some images."""
        scores = self.detector.scores(self.views, [image.views for image in batch])
        labels = torch.stack([image.label for image in batch])
        rows = torch.tensor([image.row for image in batch], device=labels.device)
        metric = self.errors or self.precision
        assert metric is not None
        metric.update(scores, labels, rows)

    def on_test_epoch_end(self) -> None:
        """Bring the guesses of all processes together."""
        if self.precision is not None:
            with self.precision.sync_context():
                self.curves = self.precision.curves()
            return
        assert self.errors is not None
        with self.errors.sync_context():
            self.table = self.errors.table()
        self.confusion = self.errors.confusion(self.table)
        self.figures = {k: float(v) for k, v in self.errors.summary(self.table).items()}
        self.log("test/top1_error", self.figures["top1_error"], rank_zero_only=True)


def try_views(views: ViewSet, classifier: Classifier, side_px: int) -> None:
    """Look at a black image: views that do not fit the network are told before it is trained.

    Args:
        views: of the test.
        classifier: before training.
        side_px: shorter side of training images.

    Raises:
        UserError: whatever does not fit.
    """
    views.fit(side_px, classifier.features.backbone)
    black = np.zeros((views.decode_px, views.decode_px, 3), np.uint8)
    training = classifier.training
    views.scores(classifier.eval(), [[[as_tensor(v) for v in kind] for kind in views(black)]])
    classifier.train(training)  # Lightning leaves modes as they are


def refuse_other_inputs(members: Sequence[Any]) -> None:
    """Members of a committee look at the same views: their networks must take the same.

    Raises:
        UserError: they do not, or some give probabilities and others margins.
    """
    if len({isinstance(member, FeatureSVM) for member in members}) > 1:
        raise UserError("a committee is of classifiers, or of SVMs on activations, but not of both")
    backbones = [member.features.backbone for member in members]
    if len({(b.input_px, b.field.stride, b.pool, b.fc6_grid) for b in backbones}) > 1:
        raise UserError(
            "the members of a committee must take inputs of one size, and have maps of one stride"
        )
