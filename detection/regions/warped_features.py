"""Features of regions as R-CNN computes them: each region is a warped image of its own."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.head import FullyConnected, fresh_fully_connected
from detection.errors import UserError
from detection.regions.warp import Mode, Outside, Warp, warp_regions
from detection.training.part import Entry


class WarpedFeatures(nn.Module):
    """pool5 of warped regions (R-CNN, section 2.1).

    Args:
        backbone: its convolutions see the regions, its fc6 and fc7 go to the detector's head.
        padding_px: context about a region, in pixels of the network's input.
        mode: how a region becomes a square (appendix A).
        original_shift: the original code's half pixel (see `Warp`).
        outside: what fills a crop beyond the image (see `Warp`).
        batch_size: regions that go through the convolutions together.
        hidden: outputs of fc6 and fc7 where the backbone has none (GoogLeNet, ResNet).
        grid: bins along a side to which the map is pooled where the backbone has no fc6; None: 1.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        padding_px: int = 16,
        mode: Mode = "warp",
        original_shift: bool = False,
        outside: Outside = "mean",
        batch_size: int = 256,
        hidden: int = 1024,
        grid: int | None = None,
    ) -> None:
        super().__init__()
        if grid is not None and (backbone.has_fc or grid < 1):
            raise UserError(
                f"model.features.grid={grid} is for backbones without fc6, which reads a grid of "
                "its own, and at least 1"
            )
        backbone.check_input(backbone.input_px, "backbone.input_px", grid or 1)
        if not 0 <= 2 * padding_px < backbone.input_px:
            raise UserError(
                f"model.features.padding_px={padding_px} leaves nothing of a square of "
                f"backbone.input_px={backbone.input_px}"
            )
        self.backbone = backbone
        self.warp = Warp(backbone.input_px, padding_px, mode, original_shift, outside)
        self.batch_size = batch_size
        self.hidden = hidden
        self.grid = grid or backbone.fc6_grid
        self.out_features = backbone.channels * self.grid**2

    def fully_connected(self) -> FullyConnected:
        """The backbone's fc6 and fc7; drawn afresh where it has none."""
        fc = self.backbone.fully_connected(self.out_features)
        return fc or fresh_fully_connected(self.out_features, self.hidden)

    def settings(self) -> str:
        """What the features depend on beside weights."""
        return f"{self.warp} grid={self.grid} {self.backbone.conv}"

    def prepare(self, image: Tensor) -> list[Tensor]:
        """The (3, H, W) image itself: there is nothing that its regions share."""
        return [image]

    def advice(self, shares: Tensor) -> str:
        """Nothing: every region is scaled by itself."""
        return ""

    def distinct(
        self, prepared: list[Tensor], boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """Every box is an image of its own."""
        rows = torch.arange(len(boxes), device=boxes.device)
        return rows, rows

    def pool(self, prepared: list[Tensor], boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (R, out_features) of windows, channels first.

        Args:
            prepared: the image.
            boxes: (R, 4) half-open xyxy in its pixels.
            size: its height and width.
        """
        # normalised before it is cut: then 0 is the mean, which fills what lies outside
        image = self.backbone.normalize(prepared[0])
        if len(boxes) == 0:
            return image.new_zeros(0, self.out_features)
        boxes = boxes.to(image.device)
        parts = (warp_regions([image], [some], self.warp) for some in boxes.split(self.batch_size))
        return torch.cat([self.pooled(crops) for crops in parts])

    def forward(
        self, images: Sequence[Tensor], boxes: Sequence[Tensor], mirror: Tensor | None = None
    ) -> Tensor:
        """Features of regions of some images, with a gradient in the weights.

        Args:
            images: (3, H, W) RGB, uint8, or floats in [0, 1]; sizes may differ.
            boxes: for each image (R', 4).
            mirror: (R,) bool: which of the crops are mirrored left to right.
        """
        crops = warp_regions(images, boxes, self.warp, self.backbone.normalize)
        if mirror is not None:
            crops = torch.where(mirror[:, None, None, None], crops.flip(3), crops)
        return self.pooled(crops)

    def pooled(self, crops: Tensor) -> Tensor:
        """(R, out_features) of normalised crops (R, 3, S, S)."""
        return self.backbone.pool5(self.backbone.maps(crops), self.grid).flatten(1)

    def entry(self) -> Entry:
        """A network begins at the warped regions."""
        side = self.warp.size_px
        return Entry(
            "crops", torch.rand(2, 3, side, side), f"crops (R, 3, {side}, {side}), RGB in [0, 1]",
            f"warping ({self.warp}; the network's mean outside the image)",
        )  # fmt: skip

    def from_entry(self, given: Tensor) -> Tensor:
        """(R, out_features) of warped regions (R, 3, S, S)."""
        return self.pooled(self.backbone.normalize(given))
