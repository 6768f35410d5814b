"""OverFeat's localiser: a regressor slid over the classifier's own maps (sections 4.1 to 4.3)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from detection.backbones.head import FullyConnected, Head, initialize
from detection.backbones.sliding import SlidingWindows
from detection.boxes import clip_boxes_to_image
from detection.classification.classifier import Classifier, ImageFeatures
from detection.classification.views import ViewSet
from detection.combine.accumulation import Accumulation
from detection.combine.nms import Combination, Detections, concatenate
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.errors import UserError
from detection.localization.box_codes import Code, from_window, starting_output
from detection.localization.localizer import Localizer, Rank, Reading
from detection.localization.views import Frame, ScaledViews, check_scaled
from detection.overfeat.pictures import localizer_sections
from detection.report.page import Section

REGRESSOR = "boxes"


class OverFeatLocalizer(Localizer):
    """At every place of every scale, classes and the box of the object that is there; merged.

    The convolutions are computed once for a scale; fc layers for classes and fc layers for boxes
    read the same windows of the map.

    Args:
        features: of the classifier, which read one grid (`GridFeatures`) or the mean
            (`AverageFeatures`).
        num_classes: C.
        views: scales to look at (table 5), or one crop (figure 9).
        side_px: shorter side of images that the classifier is trained on.
        grid: side of the grid of pooled cells that the regressor reads, for networks that average
            their map; None: the published one.
        hidden: outputs of the regressor's two hidden layers (4.2).
        per_class: the last layer has four outputs a class (PCR); False: four in all (SCR).
        code: what the outputs say of a box; see `to_window`.
        fine: windows at every offset of the last pooling (3.3); False: at none.
        top_k: see `Localizer`; also how many classes of a scale are looked for (4.3 a).
        combine: see `Localizer`; the paper's is the accumulation.
        rank: see `Localizer`.
        classes: see `Localizer`.
        class_views: see `Localizer`.
        precision: of inference.

    Raises:
        UserError: the network cannot be read densely, or a scale is too small for it.
    """

    views: ScaledViews

    def __init__(
        self,
        features: ImageFeatures,
        num_classes: int,
        *,
        views: ScaledViews,
        side_px: int = 256,
        grid: int | None = None,
        hidden: Sequence[int] = (4096, 1024),
        per_class: bool = False,
        code: Code = "edges",
        fine: bool = True,
        top_k: int = 5,
        combine: Combination = Accumulation(),
        rank: Rank = "boxes",
        classes: str | Sequence[str] | None = None,
        class_views: ViewSet | None = None,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__(
            num_classes, views, top_k=top_k, combine=combine, rank=rank, classes=classes,
            class_views=class_views,
        )  # fmt: skip
        self.precision = precision
        self.classifier = Classifier(features, num_classes, side_px=side_px, precision=precision)
        backbone = features.backbone
        self.averages = self.classifier.head.fc6 is None
        if not self.averages and features.sides != (backbone.fc6_grid,):
            raise UserError("only a network whose fc6 reads one grid can be read densely")
        self.windows = SlidingWindows.of(backbone, grid, fine)
        check_scaled(views)
        views.bind(backbone, self.windows.pooling.span)
        self.per_class, self.code = per_class, code
        inputs = backbone.channels * self.windows.pooling.grid**2
        self.regressor = regressor_head(inputs, hidden, num_classes if per_class else 1, code)

    def maps(self, view: Tensor) -> Tensor:
        """(1, C, h, w) map of a (3, H, W) view."""
        backbone = self.classifier.features.backbone
        return backbone.maps(backbone.normalize(view[None]))

    def logits(self, maps: Tensor, rows: Tensor, places: Tensor | None = None) -> Tensor:
        """(P, C) outputs of the classifier at windows of a map.

        Args:
            maps: (1, C, h, w).
            rows: (P, D) of the windows, see `SlidingWindows.rows`.
            places: see there.
        """
        return self.classifier.logits(self.windows.means(maps, places) if self.averages else rows)

    def outputs(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(P, k, 4) what the regressor says of boxes of classes (k,), from its fc7 (P, H).

        Only the asked classes' outputs are computed; a regressor for all classes says the same of
        each.
        """
        output = self.regressor.output(REGRESSOR)
        if not self.per_class:
            said: Tensor = output(hidden)
            return said[:, None].expand(-1, len(labels), -1)
        weight = output.weight.view(self.num_classes, 4, -1)[labels].flatten(0, 1)
        bias = output.bias.view(self.num_classes, 4)[labels].flatten()
        return nn.functional.linear(hidden, weight, bias).view(len(hidden), len(labels), 4)

    @torch.no_grad()
    def read(self, sample: Sample) -> Reading:
        """See `Localizer.read`."""
        return self.reading(self.see(sample), sample.size)

    def see(self, sample: Sample) -> "list[Seen]":
        """What is seen in each view of an image."""
        frames = self.views.frames(sample.size)
        return [self.look(view, frame) for view, frame in zip(sample.views[0], frames, strict=True)]

    def reading(self, seen: "Sequence[Seen]", size: tuple[int, int]) -> Reading:
        """What was seen in the views of an image of some height and width, as one."""
        highest = torch.stack([one.probabilities.amax(dim=0) for one in seen])  # (V, C)
        # 4.3 (a): the classes among the top k of any scale; ranked by the mean of the scales (3.3)
        scores = highest.mean(dim=0)
        of_scale = highest.topk(self.top_k, dim=1).indices  # (V, k)
        listed = of_scale.unique()
        wanted = listed[scores[listed].argsort(descending=True)]

        def candidates(labels: Tensor) -> Detections:
            # 4.3 (b): a scale has boxes of its own top classes; of one that is in none, all have
            elsewhere = ~torch.isin(labels, listed)
            asked = [labels[torch.isin(labels, own) | elsewhere] for own in of_scale]
            pairs = zip(seen, asked, strict=True)
            return concatenate([self.boxes(one, mine, size) for one, mine in pairs])

        return Reading(scores, wanted, candidates)

    def look(self, view: Tensor, frame: Frame) -> "Seen":
        """What is seen at every place of a view."""
        with self.autocast(view.device):
            maps = self.maps(view)
            rows = self.windows.rows(maps)
            probabilities = self.logits(maps, rows).float().softmax(dim=1)
            hidden = self.regressor.layers(rows)
        windows = self.windows.boxes(maps.shape[2:]).to(view.device)
        return Seen(frame, self.windows.shape(maps.shape[2:]), windows, probabilities, hidden)

    def boxes(self, seen: "Seen", labels: Tensor, size: tuple[int, int]) -> Detections:
        """The box of each class (k,) at each place of a view, in pixels of the image: (P · k,)."""
        with self.autocast(labels.device):
            said = self.outputs(seen.hidden, labels).float()  # (P, k, 4)
        found = from_window(seen.windows[:, None], said, self.code).flatten(0, 1)
        return {
            "boxes": clip_boxes_to_image(seen.frame.to_original(found), size),
            "scores": seen.probabilities[:, labels].flatten(),
            "labels": labels.repeat(len(seen.hidden)),
        }

    def sections(self, data: DataModule) -> list[Section]:
        """Figures 6 and 7 of the paper."""
        return localizer_sections(self, data)


def regressor_head(inputs: int, hidden: Sequence[int], boxes: int, code: Code) -> Head:
    """Two hidden layers, and four outputs for each of some boxes (4.2)."""
    layers = nn.Linear(inputs, hidden[0]), nn.Linear(hidden[0], hidden[1])
    initialize(layers)
    head = Head(inputs, FullyConnected(*layers, False), {REGRESSOR: ("fc7", 4 * boxes)})
    starting_output(head.output(REGRESSOR), code)
    return head


class Seen:
    """What is seen at every place of a view.

    Attributes:
        frame: of the view.
        shape: places down and across.
        windows: (P, 4) in the view's pixels.
        probabilities: (P, C) of the classes.
        hidden: (P, H) the regressor's fc7.
    """

    def __init__(
        self, frame: Frame, shape: tuple[int, int], windows: Tensor, probabilities: Tensor,
        hidden: Tensor,
    ) -> None:  # fmt: skip
        self.frame, self.shape, self.windows = frame, shape, windows
        self.probabilities, self.hidden = probabilities, hidden
