"""Features of whole images as SPP-net computes them (SPP-net, sections 2 and 3)."""

from collections.abc import Sequence

from torch import Tensor

from detection.backbones.backbone import Backbone, FullyConnected
from detection.classification.classifier import ImageFeatures
from detection.errors import UserError
from detection.sppnet.features import pyramid_fc
from detection.sppnet.pyramid import Bins, SpatialPyramidPooling


class PyramidFeatures(ImageFeatures):
    """A pyramid over the map of an image of any size.

    Args:
        backbone: makes the map.
        levels: (6, 3, 2, 1) or (4, 3, 2, 1) (section 3.1).
        bins: see `SpatialPyramidPooling`.
        hidden: outputs of fc6 and fc7 where the backbone has none (GoogLeNet, ResNet).
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        levels: Sequence[int] = (6, 3, 2, 1),
        bins: Bins = "adaptive",
        hidden: int = 1024,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pyramid = SpatialPyramidPooling(levels, bins)
        self.out_features = backbone.channels * sum(n * n for n in levels)
        self.sides = self.pyramid.levels
        self.least_cells = max(levels)
        self.hidden = hidden

    def fully_connected(self) -> FullyConnected:
        """fc6 on the pyramid, and fc7."""
        return pyramid_fc(self.backbone, self.pyramid.levels, self.hidden)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) → (B, sum of n² · C), bins one after the other, as the detector's.

        Raises:
            UserError: a level has more bins than the map has cells.
        """
        if max(self.sides) > min(maps.shape[2:]):
            raise UserError(
                f"level {max(self.sides)} of the pyramid is larger than the map of {maps.shape[2]}"
                f"×{maps.shape[3]}: choose larger images, or smaller model.features.levels"
            )
        return self.pyramid(maps).flatten(1)
