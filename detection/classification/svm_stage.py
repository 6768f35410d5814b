"""Training of SVMs on activations (SPP-net, section 3.2): no augmentation, C = 1."""

import logging
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor
from torch.utils.data import DataLoader

from detection.classification.feature_svm import FeatureSVM
from detection.classification.testing import BATCH
from detection.classification.views import ViewSet
from detection.data.classification_data import ClassificationData, Viewed
from detection.errors import UserError
from detection.training.stage import Stage

log = logging.getLogger(__name__)

MOST = 30_000  # images: their inner products then take 7 GB, twice where a class leaves some out


class FeatureSVMStage(Stage):
    """Learns one SVM a class, each against the rest, in one pass over the training images.

    LIBSVM learns them (3.2), whose bias is free, from the images' inner products, which are
    computed once for all classes. Every process reads all images, a few thousand, and learns
    the same.

    Args:
        detector: the SVMs and their network.
        data: to learn.
        seed: see `Stage`.
        views: one view of an image.
        c: weight of the hinge loss (1: 3.2).
    """

    name = "svm"
    detector: FeatureSVM
    data: ClassificationData

    def __init__(
        self,
        detector: FeatureSVM,
        data: ClassificationData,
        seed: int = 0,
        *,
        views: ViewSet,
        c: float,
    ) -> None:
        super().__init__(detector, data, seed)
        images = len(data.indices["train"])
        if images > MOST:
            raise UserError(
                f"SVMs on activations learn from at most {MOST} images, and here are {images}"
            )
        views.fit(data.side_px, detector.features.backbone)
        self.views = views
        self.c = c
        self.automatic_optimization = False
        self.examples: list[Tensor] = []
        self.labels: list[Tensor] = []
        detector.requires_grad_(False)
        detector.svm.requires_grad_(True)  # several processes want something to learn
        self.refuse_random_fc()

    def refuse_random_fc(self) -> None:
        """Refuse fc6 or fc7 where the weights were for the convolutions alone."""
        backbone, layer = self.detector.features.backbone, self.detector.layer
        if layer in ("fc6", "fc7") and backbone.pretrained and not backbone.fc_pretrained:
            raise UserError(
                f"model.layer={layer}: the weights hold no fc6 for these features, so it is "
                "random: choose model.features.levels as they were trained with, a convolution, or "
                "other weights"
            )

    def trainer_options(self) -> dict[str, Any]:
        """One pass, which begins anew when it is interrupted."""
        return {"max_epochs": 1, "limit_val_batches": 0}

    def configure_optimizers(self) -> None:
        """Liblinear learns."""
        return

    def train_dataloader(self) -> DataLoader[list[Viewed]]:
        """All training images, in each process."""
        return self.data.view_loader("train", self.views, BATCH, shared=False)

    def on_train_start(self) -> None:
        """Begin anew."""
        if not self.detector.features.backbone.pretrained:
            log.warning("backbone.weights= names no network: these SVMs learn from random numbers")
        self.detector.eval()
        self.examples, self.labels = [], []

    def training_step(self, batch: list[Viewed], index: int) -> None:
        """Read some images.

        Raises:
            UserError: there are several views of an image, or views of several sizes give
                activations of several lengths.
        """
        views = [[view for kind in image.views for view in kind] for image in batch]
        if any(len(of_image) != 1 for of_image in views):
            raise UserError("views: SVMs learn from one view of an image (views=centre, whole)")
        together = len({of_image[0].shape for of_image in views}) == 1
        stacks = (
            [torch.cat([torch.stack(v) for v in views])] if together else map(torch.stack, views)
        )
        for images in stacks:
            examples = self.detector.read(images)
            self.detector.refuse_other_length(examples, images)
            self.examples.append(examples.cpu())
        self.labels += [image.label.cpu() for image in batch]

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Learn the SVMs."""
        examples = torch.cat(self.examples).double().numpy()
        labels = torch.stack(self.labels)
        self.examples, self.labels = [], []
        products = examples @ examples.T
        if labels.dim() == 1:  # one class an image: the others are not there
            one_hot = torch.nn.functional.one_hot(labels, self.detector.num_classes)
            labels = 2 * one_hot - 1
        for label, name in enumerate(self.data.class_names):
            column = labels[:, label].numpy()
            rows = column != 0
            if len(np.unique(column[rows])) < 2:
                log.warning("class %s is in no training image or in all: it gets no SVM", name)
                self.detector.svm.weight[label] = 0
                self.detector.svm.bias[label] = -torch.inf
                continue
            solver = SVC(C=self.c, kernel="precomputed", cache_size=1000)
            counted = products if rows.all() else products[np.ix_(rows, rows)]  # else a copy
            solver.fit(counted, column[rows])
            weight = solver.dual_coef_[0] @ examples[np.flatnonzero(rows)[solver.support_]]
            self.detector.svm.weight[label] = torch.from_numpy(weight).float()
            self.detector.svm.bias[label] = float(solver.intercept_[0])
