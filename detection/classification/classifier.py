"""A classifier: convolutions, what is pooled from their map, fully connected layers."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.head import LAYERS, FullyConnected, Head, softmax_output
from detection.backbones.windows import average_windows, pool_windows
from detection.classification.views import ViewSet, centre_view
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.errors import UserError
from detection.training.model import Model, Prediction
from detection.training.part import Part

CLASSIFIER = "classifier"


class ImageFeatures(nn.Module):
    """What a method brings: the features of a whole image, from the backbone's map of it.

    Attributes:
        backbone: makes the map.
        out_features: of an image.
        sides: of each grid of bins.
        least_cells: along a side of a map that can be read.
    """

    backbone: Backbone
    out_features: int
    sides: tuple[int, ...]
    least_cells = 1

    def fully_connected(self) -> FullyConnected | None:
        """fc6, which reads the features, and fc7; None where the classifier reads them."""
        return None

    def windows(self, grid: Tensor, cells: Tensor) -> Tensor:
        """What `forward` makes of some windows of a map, as if each were a map: (R, out_features).

        Args:
            grid: (h, w, C), the map, channels last.
            cells: (R, 4) int64 xyxy, half-open, inside it and not empty.
        """
        raise TypeError(f"{type(self).__name__} does not say how it reads windows")


class GridFeatures(ImageFeatures):
    """The map pooled to the grid that fc6 was made for, at any input size.

    Bins repeat the cells of a smaller map.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_features = backbone.channels * backbone.fc6_grid**2
        self.sides = (backbone.fc6_grid,)

    def fully_connected(self) -> FullyConnected:
        """The backbone's."""
        fc = self.backbone.fully_connected(self.out_features)
        if fc is None:
            raise UserError(
                "this backbone has no fully connected layers: choose one of zf5, alexnet, "
                "caffenet, vgg16, overfeat_fast, overfeat_accurate"
            )
        return fc

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C · grid²)."""
        return self.backbone.pool5(maps).flatten(1)

    def windows(self, grid: Tensor, cells: Tensor) -> Tensor:
        """See `ImageFeatures.windows`."""
        return pool_windows(grid, cells, self.sides).transpose(1, 2).flatten(1)


class AverageFeatures(ImageFeatures):
    """The map's mean, as GoogLeNet and ResNet take it; the classifier reads it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_features = backbone.channels
        self.sides = (1,)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C)."""
        return maps.mean(dim=(2, 3))

    def windows(self, grid: Tensor, cells: Tensor) -> Tensor:
        """See `ImageFeatures.windows`."""
        return average_windows(grid, cells)


def published_features(backbone: Backbone) -> GridFeatures | AverageFeatures:
    """What the network's own paper pools: a grid for fc6, or the mean."""
    return GridFeatures(backbone) if backbone.has_fc else AverageFeatures(backbone)


class Classifier(Model):
    """Images → scores of classes, the mean over test-time views of each image.

    Args:
        features: of an image.
        num_classes: C.
        side_px: shorter side that images are scaled to, in training, and in views that do not say
            otherwise.
        views: to look at of a test image; None: the centre crop.
        precision: of inference: "float32" or "bfloat16".
    """

    tasks = ("classification",)
    scores_are = "probabilities"

    def __init__(
        self,
        features: ImageFeatures,
        num_classes: int,
        *,
        side_px: int | None = 256,
        views: ViewSet | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        self.features = features
        self.num_classes = num_classes
        self.precision = precision
        self.side_px = side_px or features.backbone.input_px
        fc = features.fully_connected()
        reads = ("fc7" if fc else "pool5", num_classes)
        self.head = Head(features.out_features, fc, {CLASSIFIER: reads})  # type: ignore[dict-item]
        softmax_output(self.output)
        published = features.backbone.published_classifier
        if published and published["weight"].shape == self.output.weight.shape:
            self.output.load_state_dict(published)
        self.look_at(views or centre_view())

    def look_at(self, views: ViewSet) -> None:
        """Take these views of a test image.

        Raises:
            UserError: they do not fit the network.
        """
        self.views = views
        views.bind(self.side_px, self.features.backbone)

    # The contract of a model

    @property
    def transform(self) -> ViewSet:
        """Its test-time views."""
        return self.views

    def prepare(self, data: DataModule) -> None:
        """Try the views on a black image: those that do not fit are reported before any training.

        Raises:
            UserError: whatever does not fit.
        """
        super().prepare(data)
        side = self.views.decode_px or self.side_px
        black = torch.zeros(3, side, side, dtype=torch.uint8)
        training = self.training
        self.eval().predict([self.views(Sample(black, {}, "black", 0))])
        self.train(training)

    @torch.no_grad()
    def predict(self, batch: Sequence[Sample]) -> list[Prediction]:
        """`scores` (C,) of each image: the mean over its views."""
        scores = self.views.scores(self, [sample.views for sample in batch])
        return [{"scores": row} for row in scores]

    def interface(self) -> dict[str, object]:
        """Members of an ensemble look at the same views: their networks must take the same."""
        backbone = self.features.backbone
        return super().interface() | {
            "kind of scores": self.scores_are,
            "input_px": backbone.input_px,
            "stride": backbone.field.stride,
            "last pooling": (backbone.pool, backbone.fc6_grid),
            "side_px": self.side_px,
        }

    def parts(self) -> dict[str, Part]:
        """See `Model.parts`: all of it but the views, from an image of the network's size on."""
        side = self.features.backbone.input_px
        head = Part(
            Probabilities(self), torch.rand(2, 3, side, side), "images", ["probabilities"],
            f"images (B, 3, {side}, {side}), RGB in [0, 1] → probabilities (B, C)",
            "test-time views (views=), and the scaling of images to them",
        )  # fmt: skip
        return {"head": head}

    # Scores and activations

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        return self.head.output(CLASSIFIER)

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose outputs `activations` gives."""
        if self.head.fc6 is None:
            return ["conv", "pool5", "logits"]
        count = sum(isinstance(m, nn.Conv2d) for m in self.features.backbone.conv)
        return [*(f"conv{n}" for n in range(1, count + 1)), *LAYERS, "logits"]

    @property
    def default_layer(self) -> str:
        """The last before the scores."""
        return self.layers[-2]

    def forward(self, images: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, C) logits.

        Args:
            images: (B, 3, H, W) RGB, uint8, or floats in [0, 1]; any size that the layers allow.
            dropout: after fc6 and fc7, or of the mean where there are none; see `Head.layers`.
        """
        backbone = self.features.backbone
        return self.logits(self.features(backbone.maps(backbone.normalize(images))), dropout)

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, C) outputs from pooled features."""
        if self.head.fc6 is None:
            pooled = F.dropout(pooled, dropout)
        return self.head(pooled, CLASSIFIER, dropout)  # type: ignore[no-any-return]

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, C) float32 probabilities of images of one size."""
        with self.autocast(images.device):
            return self(images).float().softmax(dim=1)

    @torch.no_grad()
    def activations(self, images: Tensor, layer: str, relu: bool = True) -> Tensor:
        """Outputs of a layer: (B, C, h, w) of a convolution, else (B, D).

        Args:
            images: see `forward`.
            layer: one of `layers`.
            relu: after its ReLU; False: before it, of fc6 or fc7.

        Raises:
            UserError: there is no such layer; lists the known ones.
        """
        self.check_layer(layer)
        backbone = self.features.backbone
        with self.autocast(images.device):
            pixels = backbone.normalize(images)
            if layer.startswith("conv"):
                return upto(backbone, layer)(pixels).float()
            pooled = self.features(backbone.maps(pixels))
            if layer == "logits":
                return self.logits(pooled).float()
            return self.head.layers(pooled, layer, relu=relu).float()  # type: ignore[arg-type]

    def check_layer(self, layer: str) -> None:
        """Check that a layer is one of `layers`, or list them."""
        if layer not in self.layers:
            raise UserError(f"layer={layer}: there is no such layer; choose one of "
                            f"{', '.join(self.layers)}")  # fmt: skip


class Probabilities(nn.Module):
    """A classifier's logits as probabilities."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] → (B, C)."""
        logits: Tensor = self.model(images)
        return logits.softmax(dim=1)


def upto(backbone: Backbone, layer: str) -> nn.Sequential:
    """The layers up to a convolution and its ReLU; all for "conv"."""
    if layer == "conv":
        return backbone.conv
    numbers = [n for n, m in enumerate(backbone.conv) if isinstance(m, nn.Conv2d)]
    return backbone.conv[: numbers[int(layer[4:]) - 1] + 2]
