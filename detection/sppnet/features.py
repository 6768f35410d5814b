"""Features of windows as SPP-net computes them: one map an image and scale, a pyramid a window."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import roi_pool

from detection.backbones.backbone import Backbone
from detection.backbones.head import FullyConnected, fresh_fully_connected
from detection.backbones.windows import (
    ScaleRule,
    choose_scales,
    pool_windows,
    scale_boxes,
    windows_on_map,
)
from detection.errors import UserError
from detection.training.part import Entry

# of the median object, in the scaled image: blood cells, cards and VOC were found best so
OBJECT_PX, TOLERANCE = 160, 1.4
Prepared = list[Tensor]  # a map (h, w, C) for each scale


class SPPFeatures(nn.Module):
    """Maps of whole images, and what a pyramid pools from them in each window.

    Args:
        backbone: its convolutions make the maps, its fc6 and fc7 go to the detector's head.
        levels: of the pyramid, section 4.1: 6, 3, 2, 1.
        scales_px: shorter side of the scaled images, one or more.
        max_side_px: no scaled image is longer; it is made smaller where it would be.
        scale_rule: how a window chooses its scale (see `choose_scales`).
        target_px: a scaled window should be about so large.
        shrink_px: see `windows_on_map`.
        hidden: outputs of fc6 and fc7 where the backbone has none (GoogLeNet, ResNet).
        antialias: smooth an image that is made smaller; the original does not.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        levels: Sequence[int] = (6, 3, 2, 1),
        scales_px: Sequence[int] = (688,),
        max_side_px: int = 3000,
        scale_rule: ScaleRule = "paper",
        target_px: float = 224,
        shrink_px: float = 6.5,
        hidden: int = 1024,
        antialias: bool = False,
    ) -> None:
        super().__init__()
        if not scales_px or not levels or min([*scales_px, *levels]) < 1:
            raise UserError("model.features.scales_px and .levels need positive numbers")
        self.backbone = backbone
        self.levels = tuple(sorted(levels, reverse=True))  # one order for all weights
        self.scales_px = tuple(scales_px)
        self.max_side_px = max_side_px
        self.scale_rule: ScaleRule = scale_rule
        self.target_px = target_px
        self.shrink_px = shrink_px
        self.hidden = hidden
        self.antialias = antialias
        self.least_px = backbone.least_side()
        self.out_features = backbone.channels * sum(n * n for n in levels)

    def fully_connected(self) -> FullyConnected:
        """fc6 on the pyramid and fc7, with the backbone's weights."""
        return pyramid_fc(self.backbone, self.levels, self.hidden)

    def settings(self) -> str:
        """What the features depend on beside weights."""
        scales = (self.scales_px, self.max_side_px, self.scale_rule, self.target_px)
        pyramid = f"spp levels={self.levels} scales={scales} shrink={self.shrink_px}"
        return f"{pyramid} antialias={self.antialias} {self.backbone.field} {self.backbone.conv}"

    def advice(self, shares: Tensor) -> str:
        """Another scale, where half of the objects are far smaller or larger than suits one."""
        if len(shares) == 0 or len(self.scales_px) > 1:
            return ""
        (scale,) = self.scales_px
        seen = float(shares.median()) * scale
        if OBJECT_PX / TOLERANCE <= seen <= OBJECT_PX * TOLERANCE:
            return ""
        better = max(16 * round(scale * OBJECT_PX / seen / 16), self.least_px)
        return (
            f"half of the objects are {'smaller' if seen < OBJECT_PX else 'larger'} than "
            f"{seen:.0f} pixels a side at model.features.scales_px=[{scale}]; some {OBJECT_PX} "
            f"suit SPP-net best: try model.features.scales_px=[{better}]"
        )

    def prepare(self, image: Tensor) -> Prepared:
        """Maps of an image, (h, w, C) for each scale.

        Args:
            image: (3, H, W) RGB, uint8, or floats in [0, 1].
        """
        pixels = self.backbone.normalize(image)[None]
        return [self.one_map(pixels, scale) for scale in self.actual_scales(image.shape[-2:])]

    def one_map(self, pixels: Tensor, scale_px: int) -> Tensor:
        """The (h, w, C) map of a normalised (1, 3, H, W) image of this shorter side."""
        plain = scaled_size(pixels.shape[-2:], scale_px)
        size = [max(side, self.least_px) for side in plain]  # one cell at least: stretched to it
        scaled = F.interpolate(
            pixels, size=size, mode="bilinear", align_corners=False, antialias=self.antialias
        )
        return self.backbone.maps(scaled)[0].permute(1, 2, 0).contiguous()

    def actual_scales(self, size: Sequence[int]) -> list[int]:
        """The scales, each lowered where the longer side would pass the limit; once if alike."""
        highest = max(1, int(self.max_side_px * min(size) / max(size)))
        return list(dict.fromkeys(min(scale, highest) for scale in self.scales_px))

    def pool(self, prepared: Prepared, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Features (R, out_features) of windows: bins of the pyramid, channels inside each bin.

        Args:
            prepared: the image's maps.
            boxes: (R, 4) half-open xyxy in pixels of the original image.
            size: height and width of that image.
        """
        chosen, windows = self.windows(prepared, boxes, size)
        pooled = prepared[0].new_empty(len(boxes), self.out_features)
        for index, grid in enumerate(prepared):  # a map for each scale, at most five
            mine = chosen == index
            if not mine.any():
                continue
            bins = pool_windows(grid, windows[mine], self.levels)
            if mine.all():  # one scale: no copy
                return bins.flatten(1)
            pooled[mine] = bins.flatten(1)
        return pooled

    def windows(
        self, prepared: Prepared, boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The scale (R,) at which each box is read, and its cells (R, 4) on that scale's map."""
        boxes = boxes.to(prepared[0].device)
        scales = self.actual_scales(size)
        chosen = choose_scales(boxes, min(size), scales, self.target_px, self.scale_rule)
        sides = torch.tensor(scales, device=boxes.device)[chosen]
        stretched = [
            [max(1.0, self.least_px / side) for side in scaled_size(size, scale)[::-1]]
            for scale in scales
        ]  # of a very long image, across
        stretch = torch.tensor(stretched, dtype=torch.double, device=boxes.device)[chosen]
        pixels = scale_boxes(boxes, min(size), sides) * stretch.repeat(1, 2)
        cells = torch.empty(len(boxes), 4, dtype=torch.long, device=boxes.device)
        for index, grid in enumerate(prepared):
            mine, shape = chosen == index, (grid.shape[0], grid.shape[1])
            cells[mine] = windows_on_map(pixels[mine], self.backbone.field, self.shrink_px, shape)
        return chosen, cells

    def distinct(
        self, prepared: Prepared, boxes: Tensor, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """See `RegionFeatures`: boxes that fall on the same cells of a map have one feature."""
        chosen, cells = self.windows(prepared, boxes, size)
        key = chosen.long()
        for column in cells.unbind(dim=1):  # a map has fewer than 4,096 cells a side
            key = key * 4096 + column
        values, which = key.unique(return_inverse=True)
        rows = torch.arange(len(key), device=key.device)
        first = rows.new_full((len(values),), len(key)).scatter_reduce(0, which, rows, "amin")
        return first, which

    def entry(self) -> Entry:
        """A network begins after the pooling, whose windows are of any number and size."""
        scales = f"shorter side {self.scales_px}, longer at most {self.max_side_px}"
        return Entry(
            "pooled", torch.rand(2, self.out_features),
            f"pooled (R, {self.out_features}), bin after bin, channels inside each",
            f"maps of the scaled image ({scales}; part=maps); pooling of levels "
            f"{self.levels} in each window, drawn in by {self.shrink_px:g} pixels",
        )  # fmt: skip

    def from_entry(self, given: Tensor) -> Tensor:
        """(R, out_features): what was pooled."""
        return given

    def forward(self, images: Tensor, windows: Tensor) -> Tensor:
        """Features (R, out_features) of windows in images of one size, with a gradient.

        Args:
            images: (B, 3, H, W), normalised; they are not scaled.
            windows: (R, 5): which image, and xyxy in its pixels.
        """
        maps = self.backbone.maps(images)
        pixels = windows[:, 1:].double() - windows.new_tensor([0.0, 0, 1, 1])  # first and last
        shape = (int(maps.shape[2]), int(maps.shape[3]))
        cells = windows_on_map(pixels, self.backbone.field, self.shrink_px, shape)
        # roi_pool takes first and last cell; its bins are those of `pool_windows`
        last = cells - cells.new_tensor([0, 0, 1, 1])
        rois = torch.cat([windows[:, :1], last], dim=1).float()
        bins = [roi_pool(maps.float(), rois, n).flatten(2) for n in self.levels]  # not in bf16
        return torch.cat(bins, dim=2).transpose(1, 2).flatten(1)


def scaled_size(size: Sequence[int], scale_px: int) -> tuple[int, int]:
    """Height and width of an image that is scaled to a shorter side, at least a pixel each.

    >>> scaled_size((40, 6000), 20)
    (20, 3000)
    """
    factor = scale_px / min(size)
    height, width = (max(1, round(side * factor)) for side in size)
    return height, width


def pyramid_fc(backbone: Backbone, levels: Sequence[int], hidden: int) -> FullyConnected:
    """fc6 on a pyramid, and fc7: those of an SPP-net if its weights were given."""
    in_features = backbone.channels * sum(n * n for n in levels)
    published, grid = backbone.fully_connected(in_features), backbone.grid_fc
    if published is not None or grid is None:
        return published or fresh_fully_connected(in_features, hidden)
    fc6 = pyramid_fc6(grid.fc6, backbone.fc6_grid, levels, grid.pretrained)
    return FullyConnected(fc6, grid.fc7, grid.pretrained)


def pyramid_fc6(fc6: nn.Linear, grid: int, levels: Sequence[int], pretrained: bool) -> nn.Linear:
    """An fc6 that reads a pyramid instead of one grid.

    Pre-trained weights go to the finest level, resized from their grid to that level's; the other
    levels start at 0, and fine-tuning finds a use for them. Random weights are drawn anew.
    """
    channels = fc6.in_features // grid**2
    wider = nn.Linear(channels * sum(n * n for n in levels), fc6.out_features)
    if not pretrained:
        nn.init.kaiming_normal_(wider.weight, nonlinearity="relu")
        nn.init.zeros_(wider.bias)
        return wider
    finest = max(levels)
    kernel = fc6.weight.detach().reshape(-1, channels, grid, grid)
    kernel = F.interpolate(kernel, size=(finest, finest), mode="bilinear", align_corners=False)
    kernel = kernel * (grid / finest) ** 2  # the sum over the grid stays
    start = channels * sum(n * n for n in levels[: list(levels).index(finest)])
    with torch.no_grad():
        wider.weight.zero_()
        block = kernel.permute(0, 2, 3, 1).flatten(1)  # bins, then channels
        wider.weight[:, start : start + block.shape[1]] = block
        wider.bias.copy_(fc6.bias)
    return wider
