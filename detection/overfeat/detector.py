"""OverFeat's detector: classes and boxes at every place of every scale; no proposals (5)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.backbones.head import FullyConnected, Head, fresh_fully_connected, softmax_output
from detection.backbones.sliding import SlidingWindows
from detection.boxes import clip_boxes_to_image
from detection.combine.accumulation import Accumulation
from detection.combine.nms import Combination, Detections, concatenate
from detection.data.samples import Sample, Transform
from detection.errors import UserError
from detection.localization.box_codes import Code, from_window
from detection.localization.views import Frame, ScaledViews
from detection.overfeat.localizer import REGRESSOR, regressor_head
from detection.runtime.stopwatch import timed
from detection.training.model import Model, check_numbers

CLASSIFIER, CONTEXT = "classifier", "context"


class Scale(NamedTuple):
    """One view of an image, place by place.

    Attributes:
        frame: of the view.
        windows: (P, 4) in pixels of the image.
        rows: (P, D) pooled features of the windows.
    """

    frame: Frame
    windows: Tensor
    rows: Tensor


class OverFeatDetector(Model):
    """Images → detections: at every place a class or background, and the box of what is there.

    Args:
        backbone: convolutions.
        num_classes: C, without background.
        views: scales to look at, from small to large.
        grid: see `OverFeatLocalizer`.
        hidden: outputs of the classifier's fc6 and fc7, for networks that have none.
        box_hidden: outputs of the regressor's two hidden layers (4.2).
        per_class: the regressor's last layer has four outputs a class; False: four in all (SCR).
        code: what the outputs say of a box; see `to_window`.
        fine: windows at every offset of the last pooling (3.3); False: at none.
        context: each scale also reads what the scale below it saw at the same place ("each scale
            also uses lower resolution scales as input", 5): its fc7, by weights of its own. How,
            the paper does not say: here the one scale below. The lowest reads itself.
        combine: from the candidates to detections.
        min_score: least probability of a candidate.
        precision: of inference.

    Raises:
        UserError: the network cannot be read densely, or a scale is too small for it.
    """

    tasks = ("detection",)

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        views: ScaledViews,
        grid: int | None = None,
        hidden: int = 1024,
        box_hidden: Sequence[int] = (4096, 1024),
        per_class: bool = False,
        code: Code = "edges",
        fine: bool = True,
        context: bool = True,
        combine: Combination = Accumulation(),
        min_score: float = 0.05,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        self.backbone, self.num_classes, self.precision = backbone, num_classes, precision
        shorter = [views.shorter(size) for size in views.sizes]
        if context and shorter != sorted(shorter):
            raise UserError(f"scales.sizes={views.sizes}: give them from small to large")
        self.windows = SlidingWindows.of(backbone, grid, fine)
        views.bind(backbone, self.windows.pooling.span)
        self.views = views
        inputs = backbone.channels * self.windows.pooling.grid**2
        fc: FullyConnected = backbone.fully_connected(inputs) or fresh_fully_connected(
            inputs, hidden
        )
        outputs = {CLASSIFIER: num_classes + 1} | ({CONTEXT: num_classes + 1} if context else {})
        self.head = Head(inputs, fc, {name: ("fc7", size) for name, size in outputs.items()})
        for name in outputs:
            softmax_output(self.head.output(name))
        self.per_class, self.code, self.context = per_class, code, context
        self.regressor = regressor_head(inputs, box_hidden, num_classes if per_class else 1, code)
        self.combine = combine
        self.min_score = min_score

    # The contract of a model

    @property
    def transform(self) -> Transform:
        """Its scales."""
        return self.views

    @property
    def combination(self) -> Combination:
        """The union of several detectors' boxes is combined as one."""
        return self.combine

    def interface(self) -> dict[str, object]:
        """Members of an ensemble look at the same views."""
        return super().interface() | {"scales": self.views.settings()}

    def predict(self, batch: Sequence[Sample]) -> list[Detections]:
        """Detections of each image, best first."""
        found = self.candidates(batch)
        with timed("suppression", found[0]["boxes"].device):
            return [self.combine(candidates) for candidates in found]

    @torch.no_grad()
    def candidates(self, batch: Sequence[Sample]) -> list[Detections]:
        """Every pair of place and class that scores enough, with its box."""
        return [self._candidates(sample) for sample in batch]

    def _candidates(self, sample: Sample) -> Detections:
        frames = self.views.frames(sample.size)
        views = sample.views[0]
        with self.autocast(views[0].device):
            with timed("conv", views[0].device):
                maps = [self.maps(view) for view in views]
            scales = self.scales(maps, frames)
            hidden = [self.head.layers(scale.rows) for scale in scales]
            below = self.below(scales, hidden)
        found = []
        for scale, own, lower in zip(scales, hidden, below, strict=True):
            with self.autocast(own.device):
                probabilities = self.logits(own, lower).float().softmax(dim=1)[:, :-1]
                check_numbers(sample.image_id, probabilities)
                place, label = torch.nonzero(probabilities > self.min_score, as_tuple=True)
                said = self.said(self.regressor.layers(scale.rows[place]), label).float()
            boxes = from_window(scale.windows[place], mirrored_back(said, scale.frame, self.code),
                                self.code)  # fmt: skip
            found.append(
                {
                    "boxes": clip_boxes_to_image(boxes, sample.size),
                    "scores": probabilities[place, label],
                    "labels": label,
                }
            )
        return concatenate(found)

    # Its layers

    def maps(self, view: Tensor) -> Tensor:
        """(1, C, h, w) map of a (3, H, W) view."""
        return self.backbone.maps(self.backbone.normalize(view[None]))

    def scales(self, maps: Sequence[Tensor], frames: Sequence[Frame]) -> list[Scale]:
        """The places of some views, in pixels of the image."""
        return [
            Scale(frame, self.places(one, frame), self.windows.rows(one))
            for one, frame in zip(maps, frames, strict=True)
        ]

    def places(self, maps: Tensor, frame: Frame) -> Tensor:
        """(P, 4) windows of a map in pixels of the image."""
        return frame.to_original(self.windows.boxes(maps.shape[2:]).to(maps.device))

    def below(self, scales: Sequence[Scale], hidden: Sequence[Tensor]) -> list[Tensor]:
        """What the next lower scale saw at each place, (P, H) for each scale; see `context`."""
        if not self.context:
            return list(hidden)
        step = 2 if self.views.flip else 1  # each scale is followed by its mirror image
        found = []
        for number, (scale, own) in enumerate(zip(scales, hidden, strict=True)):
            lower = number - step
            if lower < 0:
                found.append(own)
            else:
                found.append(hidden[lower][nearest(scale.windows, scales[lower].windows)])
        return found

    def logits(self, hidden: Tensor, below: Tensor) -> Tensor:
        """(P, C + 1) outputs of the classifier, background last.

        Args:
            hidden: (P, H) fc7 of some places.
            below: (P, H) of the same places at the scale below.
        """
        own: Tensor = self.head.output(CLASSIFIER)(hidden)
        return own + self.head.output(CONTEXT)(below) if self.context else own

    def said(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(P, 4) what the regressor says of the boxes of places' classes (P,), from its fc7."""
        outputs = self.regressor.output(REGRESSOR)(hidden).unflatten(1, (-1, 4))
        return outputs[torch.arange(len(hidden)), labels] if self.per_class else outputs[:, 0]

    def learnable(self, with_convolutions: bool) -> list[nn.Module]:
        """Its layers, with or without the convolutions."""
        return [self.head, self.regressor, *([self.backbone] if with_convolutions else [])]


def nearest(windows: Tensor, others: Tensor) -> Tensor:
    """(P,) for each window (P, 4) the one of others (Q, 4) whose centre is nearest, the first."""
    centres = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (windows, others)]
    return torch.cdist(centres[0], centres[1]).argmin(dim=1)


def mirrored_back(said: Tensor, frame: Frame, code: Code) -> Tensor:
    """What was said of boxes in a mirrored view, as if it had been said of the image itself."""
    if not frame.mirrored:
        return said
    if code == "centre_size":
        return said * said.new_tensor([-1.0, 1, 1, 1])
    left, top, right, bottom = said.unbind(dim=1)
    return torch.stack([1 - right, top, 1 - left, bottom], dim=1)
