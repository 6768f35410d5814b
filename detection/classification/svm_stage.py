"""Training of SVMs on activations (SPP-net, section 3.2): no augmentation, C = 1."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detection.classification.feature_svm import FeatureSVM
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.training.stage import Stage

log = logging.getLogger(__name__)

MOST = 30_000  # images: their inner products then take 7 GB, twice where a class leaves some out


@dataclass(frozen=True, kw_only=True)
class FeatureSVMOptions:
    """How SVMs on activations are trained.

    Attributes:
        c: weight of the hinge loss (SPP-net, 3.2).
    """

    c: float = 1.0

    def stage(
        self, model: FeatureSVM, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "FeatureSVMStage":
        """The stage that trains so."""
        return FeatureSVMStage(model, data, evaluator, seed, options=self)


class FeatureSVMStage(Stage):
    """Learns one SVM a class, each against the rest, in one pass over the training images.

    LIBSVM learns them (3.2), whose bias is free, from the images' inner products, which are
    computed once for all classes. Every process reads all images, a few thousand, and learns
    the same.

    Args:
        model: the SVMs and their network; its views give one view of an image.
        data: to learn.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "svm"
    model: FeatureSVM

    def __init__(
        self,
        model: FeatureSVM,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: FeatureSVMOptions = FeatureSVMOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        images = len(data.split("train"))
        if images > MOST:
            raise UserError(
                f"SVMs on activations learn from at most {MOST} images, and here are {images}"
            )
        self.options = options
        self.automatic_optimization = False
        self.examples: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.check_fc()

    def learns(self) -> Sequence[nn.Module]:
        """The SVMs, if not by their gradient: several processes want something to learn."""
        return [self.model.svm]

    def check_fc(self) -> None:
        """Check that fc6 and fc7 are not random after convolutions that have weights."""
        backbone, layer = self.model.features.backbone, self.model.layer
        if layer in ("fc6", "fc7") and backbone.pretrained and not self.model.head.pretrained:
            raise UserError(
                f"model.layer={layer}: the weights hold no fc6 for these features, so it is "
                "random: choose model.features.levels as they were trained with, a convolution, or "
                "other weights"
            )

    def trainer_options(self) -> dict[str, Any]:
        """One pass, which begins anew when it is interrupted."""
        return {"max_epochs": 1, "limit_val_batches": 0}

    def configure_optimizers(self) -> None:
        """None: LIBSVM learns."""
        return

    def train_dataloader(self) -> DataLoader[list[Sample]]:
        """All training images, in each process."""
        return self.data.loader("train", self.model.transform, share=False)

    def on_train_start(self) -> None:
        """Begin anew."""
        if not self.model.features.backbone.pretrained:
            log.warning("backbone.weights= names no network: these SVMs learn from random numbers")
        self.examples, self.labels = [], []

    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
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
            examples = self.model.read(images)
            self.model.check_length(examples, images)
            self.examples.append(examples.cpu())
        self.labels += [next(iter(image.target.values())).cpu() for image in batch]

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Learn the SVMs."""
        examples = torch.cat(self.examples).double().numpy()
        labels = torch.stack(self.labels)
        self.examples, self.labels = [], []
        products = examples @ examples.T
        if labels.dim() == 1:  # one class an image: the others are not there
            one_hot = torch.nn.functional.one_hot(labels, self.model.num_classes)
            labels = 2 * one_hot - 1
        for label, name in enumerate(self.data.class_names):
            column = labels[:, label].numpy()
            rows = column != 0
            if len(np.unique(column[rows])) < 2:
                log.warning("class %s is in no training image or in all: it gets no SVM", name)
                self.model.svm.weight[label] = 0
                self.model.svm.bias[label] = -torch.inf
                continue
            solver = SVC(C=self.options.c, kernel="precomputed", cache_size=1000)
            counted = products if rows.all() else products[np.ix_(rows, rows)]  # else a copy
            solver.fit(counted, column[rows])
            weight = solver.dual_coef_[0] @ examples[np.flatnonzero(rows)[solver.support_]]
            self.model.svm.weight[label] = torch.from_numpy(weight).float()
            self.model.svm.bias[label] = float(solver.intercept_[0])
