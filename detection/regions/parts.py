"""The networks in a region detector, as other programs run them."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.training.part import Part

if TYPE_CHECKING:
    from detection.regions.detector import RegionDetector

DELTAS = (
    "deltas (R, C, 4) move a box: centre by dx, dy times its width and height, width and height "
    "by exp(dw), exp(dh)"
)


class RegionHead(nn.Module):
    """Regions, as the method's features take them in, → scores, and deltas of their boxes."""

    def __init__(self, model: "RegionDetector") -> None:
        super().__init__()
        self.model = model
        # asked now: a graph has no branch that depends on a weight
        self.scored_by, self.moves_boxes = model.scored_by, model.moves_boxes

    def forward(self, regions: Tensor) -> tuple[Tensor, ...]:
        """(R, ...) → (R, C), and (R, C, 4) where box regressors are fitted."""
        pooled = self.model.regions.from_entry(regions)
        scores = self.model.score(pooled, self.scored_by)
        return (scores, self.model.deltas(pooled)) if self.moves_boxes else (scores,)


class Maps(nn.Module):
    """Pictures → the maps that a backbone makes of them."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, D, h, w)."""
        return self.backbone.maps(self.backbone.normalize(images))


def parts_of(model: "RegionDetector") -> dict[str, Part]:
    """What scores regions ("head"; of R-CNN with its convolutions), and the convolutions."""
    entry = model.regions.entry()
    scores = "margins" if model.scored_by == "svm" else "probabilities"
    outputs = ["scores", "deltas"] if model.moves_boxes else ["scores"]
    head = Part(
        RegionHead(model), entry.example, entry.input_name, outputs,
        f"{entry.about} → scores (R, C), {scores}{'; ' + DELTAS if model.moves_boxes else ''}",
        f"{model.search.name}; {entry.left_out}; suppression",
    )  # fmt: skip
    backbone, field = model.regions.backbone, model.regions.backbone.field
    maps = Part(
        Maps(backbone), torch.rand(2, 3, backbone.input_px, backbone.input_px), "images", ["maps"],
        f"images (B, 3, H, W), RGB in [0, 1] → maps (B, {backbone.channels}, h, w); cell i looks "
        f"at pixel {field.start:g} + {field.stride} i",
        resizes=True,
    )  # fmt: skip
    return {"head": head, "maps": maps}
