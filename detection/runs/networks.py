"""The parts of a trained model that are networks, by themselves, as other programs run them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.classification.classifier import Classifier
from detection.errors import UserError
from detection.regions.detector import RegionDetector
from detection.regions.warped_features import WarpedFeatures
from detection.training.model import Model


class Part(NamedTuple):
    """A network, and how it is called.

    Attributes:
        network: in eval mode.
        example: an input; the first dimension may be of any size.
        input_name: of the input.
        output_names: of the outputs.
        about: what goes in and comes out.
        left_out: what of the model is no network, and is left to the caller.
        resizes: whether height and width of the input may be of any size too.
    """

    network: nn.Module
    example: Tensor
    input_name: str
    output_names: Sequence[str]
    about: str
    left_out: str = ""
    resizes: bool = False


class WholeClassifier(nn.Module):
    """Pictures of the network's own size → probabilities, or the margins of SVMs."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [0, 1] → (B, C)."""
        logits: Tensor = self.model(images)
        return logits.softmax(dim=1)


class RegionHead(nn.Module):
    """Pooled features of regions → scores, and the deltas that move their boxes."""

    def __init__(self, model: RegionDetector) -> None:
        super().__init__()
        self.model = model
        # asked now: a graph has no branch that depends on a weight
        self.scored_by, self.moves_boxes = model.scored_by, model.moves_boxes

    def forward(self, pooled: Tensor) -> tuple[Tensor, ...]:
        """(R, D) → (R, C), and (R, C, 4) where box regressors are fitted."""
        scores = self.model.score(pooled, self.scored_by)
        if not self.moves_boxes:
            return (scores,)
        return scores, self.model.deltas(pooled)


class WarpedRegions(RegionHead):
    """R-CNN's warped regions → the same."""

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """(R, 3, S, S) in [0, 1]."""
        features = self.model.features
        assert isinstance(features, WarpedFeatures)
        maps = features.backbone.maps(features.backbone.normalize(crops))
        return super().forward(features.pool5(maps).flatten(1))


class Maps(nn.Module):
    """Pictures → the maps that windows are pooled from."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, D, h, w)."""
        return self.backbone.maps(self.backbone.normalize(images))


BOXES = (
    "deltas (R, C, 4) move a box: centre by dx, dy times its width and height, width and height "
    "by exp(dw), exp(dh)"
)


def part_of(model: Model, name: str) -> Part:
    """A part of a model: "head", its end (a whole classifier), or a detector's "maps".

    Raises:
        UserError: the model has no such part.
    """
    if isinstance(model, Classifier) and name == "head":
        return whole_classifier(model)
    if isinstance(model, RegionDetector):
        return region_head(model) if name == "head" else maps_of(model)
    raise UserError(f"part={name}: this model has no such part that is a network")


def whole_classifier(model: Classifier) -> Part:
    """A classifier, without its test-time views."""
    if model.scores_are != "probabilities":
        raise UserError("SVMs on activations are exported as weights only: out=FILE.safetensors")
    side = model.features.backbone.input_px
    return Part(
        WholeClassifier(model), torch.rand(2, 3, side, side), "images", ["probabilities"],
        f"images (B, 3, {side}, {side}), RGB in [0, 1] → probabilities (B, C)",
        f"test-time views: scale the shorter side to {model.side_px} pixels and cut the centre out",
    )  # fmt: skip


def region_head(model: RegionDetector) -> Part:
    """What scores regions; of R-CNN with its convolutions."""
    scores = "margins" if model.scored_by == "svm" else "probabilities"
    outputs = ["scores", "deltas"] if model.moves_boxes else ["scores"]
    about = f"→ scores (R, C), {scores}{'; ' + BOXES if model.moves_boxes else ''}"
    if isinstance(model.features, WarpedFeatures):
        side = model.features.warp.size_px
        return Part(
            WarpedRegions(model), torch.rand(2, 3, side, side), "crops", outputs,
            f"crops (R, 3, {side}, {side}), RGB in [0, 1] {about}",
            f"selective search; warping ({model.features.warp}, the mean outside the image); "
            "suppression",
        )  # fmt: skip
    return Part(
        RegionHead(model), torch.rand(2, model.regions.out_features), "pooled", outputs,
        f"pooled (R, {model.regions.out_features}), bins of the pyramid, channels inside each "
        f"{about}",
        "selective search; the pyramid over the map (part=maps) in each window "
        f"({model.regions.settings().split(' Seq')[0]}); suppression",
    )  # fmt: skip


def maps_of(model: RegionDetector) -> Part:
    """A region detector's convolutions."""
    backbone = model.regions.backbone
    field = backbone.field
    side = backbone.input_px
    return Part(
        Maps(backbone), torch.rand(2, 3, side, side), "images", ["maps"],
        f"images (B, 3, H, W), RGB in [0, 1] → maps (B, {backbone.channels}, h, w); cell i looks "
        f"at pixel {field.start:g} + {field.stride} i",
        resizes=True,
    )  # fmt: skip
