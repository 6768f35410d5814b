"""SVMs on a trained network's activations (SPP-net, sections 3.2 and 3.3)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.classification.classifier import Classifier, ImageFeatures
from detection.classification.views import ViewSet
from detection.errors import UserError
from detection.training.part import Part

GRID = "grid5"


class FeatureSVM(Classifier):
    """One linear SVM a class on l2-normalised activations of a layer.

    Args:
        features: see `Classifier`; its backbone brings the weights.
        num_classes: C.
        layer: see `Classifier.layers`; "grid5" is the map pooled to fc6's published grid, which
            in an SPP-net is the finest level of its pyramid (tables 3 and 4).
        side_px: see `Classifier`; None: the side of the network's inputs (SPP-net, 3.2).
        views: see `Classifier`; one view an image.
        precision: see `Classifier`.
    """

    scores_are = "margins"

    def __init__(
        self,
        features: ImageFeatures,
        num_classes: int,
        *,
        layer: str = "fc7",
        side_px: int | None = None,
        views: ViewSet | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(features, num_classes, side_px=side_px, views=views, precision=precision)
        if layer not in self.layers:
            raise UserError(f"model.layer={layer}: choose one of {', '.join(self.layers)}")
        self.layer = layer
        self.eval()  # batch norm learns nothing from the zeros below
        side = features.backbone.input_px
        width = self.read(torch.zeros(1, 3, side, side)).shape[1]
        self.svm = nn.Linear(width, num_classes)

    def parts(self) -> dict[str, Part]:
        """None: activations are normalised, and scored by SVMs, outside of the network."""
        return {}

    @property
    def layers(self) -> list[str]:
        """As a classifier's, without the scores of its classes, and "grid5"."""
        return [*super().layers[:-1], GRID]

    @property
    def default_layer(self) -> str:
        """That which the SVMs learn from."""
        return self.layer

    @torch.no_grad()
    def activations(self, images: Tensor, layer: str, relu: bool = True) -> Tensor:
        """See `Classifier.activations`; of "grid5" (B, C · grid²)."""
        if layer != GRID:
            return super().activations(images, layer, relu)
        last = [name for name in self.layers if name.startswith("conv")][-1]
        return self.features.backbone.pool5(super().activations(images, last)).flatten(1)

    def read(self, images: Tensor) -> Tensor:
        """(B, D) normalised activations; D of a convolution depends on the images' size."""
        return F.normalize(self.activations(images, self.layer).flatten(1))

    def check_length(self, activations: Tensor, images: Tensor) -> None:
        """Check that activations are as long as those that the SVMs read.

        Raises:
            UserError: a convolution's, of views that are not crops of the network's inputs.
        """
        if activations.shape[1] != self.svm.in_features:
            raise UserError(
                f"layer={self.layer} gives {activations.shape[1]} numbers for a view of "
                f"{tuple(images.shape[2:])} pixels, and {self.svm.in_features} for a crop: choose "
                "views=centre, or a layer after the pooling"
            )

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, C) margins; see `check_length`."""
        activations = self.read(images)
        self.check_length(activations, images)
        with torch.autocast(images.device.type, enabled=False):  # bfloat16 would make ties
            return self.svm(activations)
