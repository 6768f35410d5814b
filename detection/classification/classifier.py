"""A classifier: convolutions, what is pooled from their map, fully connected layers."""

from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.errors import UserError


class ImageFeatures(Protocol):
    """What a method brings: the features of a whole image."""

    backbone: Backbone
    out_features: int
    sides: tuple[int, ...]  # of each grid of bins
    least_cells: int  # along a side of a map that can be read

    def fc_layers(self) -> tuple[nn.Linear, nn.Linear] | None:
        """fc6, which reads the features, and fc7; None where the classifier reads them."""
        ...

    def __call__(self, maps: Tensor) -> Tensor:
        """Features (B, out_features) of (B, C, h, w) maps."""
        ...


class GridFeatures(nn.Module):
    """The map pooled to the grid that fc6 was made for, at any input size."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_features = backbone.channels * backbone.fc6_grid**2
        self.sides = (backbone.fc6_grid,)
        self.least_cells = 1  # bins repeat the cells of a smaller map

    def fc_layers(self) -> tuple[nn.Linear, nn.Linear]:
        """The backbone's."""
        return self.backbone.give_fc_layers()

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C · grid²)."""
        return self.backbone.pool5(maps).flatten(1)


class AverageFeatures(nn.Module):
    """The map's mean, as GoogLeNet and ResNet take it."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.out_features = backbone.channels
        self.sides = (1,)
        self.least_cells = 1

    def fc_layers(self) -> None:
        """None: the classifier reads the mean."""
        return

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, C)."""
        return maps.mean(dim=(2, 3))


def published_features(backbone: Backbone) -> GridFeatures | AverageFeatures:
    """What the network's own paper pools: a grid for fc6, or the mean."""
    return GridFeatures(backbone) if hasattr(backbone, "fc6") else AverageFeatures(backbone)


class Classifier(nn.Module):
    """Images → scores of classes.

    Args:
        features: `ImageFeatures` that is also an `nn.Module`.
        num_classes: K.
        precision: of inference: "float32" or "bfloat16".
    """

    def __init__(
        self, features: Any, num_classes: int, *, precision: Literal["float32", "bfloat16"]
    ) -> None:
        super().__init__()
        self.features = features
        self.num_classes = num_classes
        self.precision = precision
        layers: tuple[nn.Linear | None, ...] = features.fc_layers() or (None, None)
        self.fc6, self.fc7 = layers
        width = self.fc7.out_features if self.fc7 else features.out_features
        self.classifier = nn.Linear(width, num_classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        self.take_published(features.backbone.spare)

    def take_published(self, spare: dict[str, Tensor]) -> None:
        """Use a published last layer if it is for as many classes."""
        weight = spare.get("classifier.weight")
        if weight is not None and weight.shape == self.classifier.weight.shape:
            parts = {part: spare[f"classifier.{part}"] for part in ("weight", "bias")}
            self.classifier.load_state_dict(parts)

    @property
    def layers(self) -> list[str]:
        """Names of the layers whose outputs `activations` gives."""
        if self.fc6 is None:
            return ["conv", "pool5", "logits"]
        count = sum(isinstance(m, nn.Conv2d) for m in self.features.backbone.conv)
        return [*(f"conv{n}" for n in range(1, count + 1)), "pool5", "fc6", "fc7", "logits"]

    @property
    def default_layer(self) -> str:
        """The last before the scores."""
        return self.layers[-2]

    def forward(self, images: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, K) logits.

        Args:
            images: (B, 3, H, W) RGB, uint8, or floats in [0, 1]; any size that the layers allow.
            dropout: behind fc6 and fc7, or of the mean where there are none.
        """
        backbone = self.features.backbone
        return self.logits(self.features(backbone.maps(backbone.normalize(images))), dropout)

    def logits(self, pooled: Tensor, dropout: float = 0.0) -> Tensor:
        """(B, K) outputs from pooled features."""
        if self.fc6 is None or self.fc7 is None:
            return self.classifier(F.dropout(pooled, dropout))
        hidden = F.dropout(F.relu(self.fc6(pooled)), dropout)
        return self.classifier(F.dropout(F.relu(self.fc7(hidden)), dropout))

    @torch.no_grad()
    def scores(self, images: Tensor) -> Tensor:
        """(B, K) float32 probabilities."""
        with self.autocast(images):
            return self(images).float().softmax(dim=1)

    def autocast(self, images: Tensor) -> torch.autocast:
        """The context of inference."""
        return torch.autocast(
            images.device.type, torch.bfloat16, enabled=self.precision == "bfloat16"
        )

    @torch.no_grad()
    def activations(self, images: Tensor, layer: str, relu: bool = True) -> Tensor:
        """Outputs of a layer: (B, C, h, w) of a convolution, else (B, D).

        Args:
            images: see `forward`.
            layer: one of `layers`.
            relu: behind its ReLU; False: before it, of fc6 or fc7.

        Raises:
            UserError: there is no such layer; lists the known ones.
        """
        self.refuse_unknown(layer)
        backbone = self.features.backbone
        with self.autocast(images):
            pixels = backbone.normalize(images)
            if layer.startswith("conv"):
                return upto(backbone, layer)(pixels).float()
            hidden = self.features(backbone.maps(pixels))
            if layer == "logits":
                return self.logits(hidden).float()
            for name in ("fc6", "fc7")[: ("pool5", "fc6", "fc7").index(layer)]:
                hidden = getattr(self, name)(hidden)
                hidden = F.relu(hidden) if relu or name != layer else hidden
            return hidden.float()

    def refuse_unknown(self, layer: str) -> None:
        """Refuse a layer that is not one of `layers`, and list them."""
        if layer not in self.layers:
            raise UserError(f"layer={layer}: there is no such layer; choose one of "
                            f"{', '.join(self.layers)}")  # fmt: skip


def upto(backbone: Backbone, layer: str) -> nn.Sequential:
    """The layers up to a convolution and its ReLU; all for "conv"."""
    if layer == "conv":
        return backbone.conv
    places = [n for n, m in enumerate(backbone.conv) if isinstance(m, nn.Conv2d)]
    return backbone.conv[: places[int(layer[4:]) - 1] + 2]
