"""SVMs on a trained network's activations (SPP-net, sections 3.2 and 3.3)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.classification.classifier import Classifier
from detection.errors import UserError

GRID = "grid5"


class FeatureSVM(Classifier):
    """One linear SVM a class on l2-normalised activations of a layer.

    Args:
        features: see `Classifier`; its backbone brings the weights.
        num_classes: K.
        layer: see `Classifier.layers`; "grid5" is the map pooled to fc6's published grid, which
            in an SPP-net is the finest level of its pyramid (tables 3 and 4).
        precision: see `Classifier`.
    """

    def __init__(
        self,
        features: Any,
        num_classes: int,
        *,
        layer: str,
        precision: Literal["float32", "bfloat16"],
    ) -> None:
        super().__init__(features, num_classes, precision=precision)
        choices = [*self.layers[:-1], GRID]  # without the scores of classes
        if layer not in choices:
            raise UserError(f"model.layer={layer}: choose one of {', '.join(choices)}")
        self.layer = layer
        self.eval()  # batch norm learns nothing from the zeros below
        side = features.backbone.input_px
        width = self.read(torch.zeros(1, 3, side, side)).shape[1]
        self.svm = nn.Linear(width, num_classes)

    def read(self, images: Tensor) -> Tensor:
        """(B, D) normalised activations; D of a convolution depends on the images' size."""
        if self.layer == GRID:
            last = [name for name in self.layers if name.startswith("conv")][-1]
            activations = self.features.backbone.pool5(self.activations(images, last))
        else:
            activations = self.activations(images, self.layer)
        return F.normalize(activations.flatten(1))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, K) margins."""
        activations = self.read(images)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would make ties
            return self.svm(activations)
