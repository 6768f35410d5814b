"""R-CNN on the per-class RPN's boxes: each is warped, scored, moved (ResNet, appendix C)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from detection.backbones.head import Head
from detection.boxes import clip_boxes_to_image, decode
from detection.classification.classifier import Classifier
from detection.combine.nms import NMS, Detections
from detection.data.module import DataModule
from detection.data.samples import Sample, Transform
from detection.localization.localizer import Localizer, Reading
from detection.regions.warped_features import WarpedFeatures
from detection.report.page import Section
from detection.rpn.head import OUTPUT_STD
from detection.rpn.pictures import rpn_sections
from detection.rpn.rpn import PerClassRPN
from detection.training.model import check_numbers

SCORES, BOXES = "scores", "boxes"
BOX_STD = 0.001  # of fresh weights (fast-rcnn: bbox_pred in train.prototxt)


class WithImage:
    """The RPN's views, and the image itself as it is stored, from which regions are cut."""

    decode_px: int | None = None

    def __init__(self, views: Transform) -> None:
        self.views, self.batch_size = views, views.batch_size

    def __call__(self, sample: Sample) -> Sample:
        """The sample with both."""
        return replace(self.views(sample), image=sample.image)


class RPNWithRCNN(Localizer):
    """The RPN's best boxes of each class that is asked for; R-CNN's scores and boxes for them.

    Args:
        rpn: makes the RPN from the number of classes; it names the classes too.
        regions: features of warped regions, of a network of their own.
        num_classes: C.
        proposals: boxes of each class that are looked at (appendix C: 200).
        proposal_max_iou: of two that overlap more, the lower is left out (Faster R-CNN: 0.7).
        hidden_layers: fc6 and fc7 stand before the outputs where the network has none too, drawn
            afresh (`regions.hidden` wide): for features that do not learn. Ours.
        precision: of inference.
    """

    def __init__(
        self,
        rpn: Callable[..., PerClassRPN],
        regions: WarpedFeatures,
        num_classes: int,
        *,
        proposals: int = 200,
        proposal_max_iou: float = 0.7,
        hidden_layers: bool = False,
        precision: Literal["float32", "bfloat16"] = "float32",
    ) -> None:
        made = rpn(num_classes=num_classes)
        super().__init__(
            num_classes, made.views, top_k=made.top_k, combine=made.combine, rank=made.rank
        )
        self.precision = precision
        self.rpn = made
        self.regions = regions
        self.select = NMS(proposal_max_iou, proposals, None)
        # siblings in place of a classifier's last layer: no fc6 where the network has none
        fc = regions.backbone.fully_connected(regions.out_features)
        fc = regions.fully_connected() if hidden_layers else fc
        last = "fc7" if fc else "pool5"
        outputs = {SCORES: (last, num_classes), BOXES: (last, 4 * num_classes)}
        self.head = Head(regions.out_features, fc, outputs)  # type: ignore[arg-type]
        for name, std in ((SCORES, OUTPUT_STD), (BOXES, BOX_STD)):
            torch.nn.init.normal_(self.head.output(name).weight, std=std)
            torch.nn.init.zeros_(self.head.output(name).bias)

    @property
    def classifier(self) -> Classifier:
        """The RPN's, which names the classes."""
        return self.rpn.classifier

    @property
    def transform(self) -> Transform:
        """The RPN's views and the image."""
        return WithImage(self.rpn.transform)

    def prepare(self, data: DataModule) -> None:
        """See `Localizer.prepare`."""
        self.rpn.prepare(data)
        data.transform = self.transform

    def name_classes(self, batch: Sequence[Sample]) -> list[Tensor | None]:
        """See `Localizer.name_classes`: whoever names the RPN's."""
        return self.rpn.name_classes(batch)

    def interface(self) -> dict[str, object]:
        """The RPN's: it looks, and asks who names the classes."""
        return self.rpn.interface()

    @torch.no_grad()
    def propose(self, sample: Sample, labels: Tensor) -> Detections:
        """The RPN's best boxes of classes (k,), best first."""
        return self.chosen(self.rpn.read(sample).candidates(labels), sample)

    def chosen(self, candidates: Detections, sample: Sample) -> Detections:
        """The best of the RPN's boxes; those that clipping left without area are a pixel wide.

        Raises:
            TrainingError: they are not numbers.
        """
        boxes = candidates["boxes"]
        check_numbers(sample.image_id, boxes, candidates["scores"])
        far = boxes.new_tensor([sample.size[1], sample.size[0]])
        low = torch.minimum(boxes[:, :2], far - 1)
        boxes = torch.cat([low, torch.maximum(boxes[:, 2:], low + 1)], dim=1)
        return self.select({**candidates, "boxes": boxes})

    @torch.no_grad()
    def read(self, sample: Sample) -> Reading:
        """See `Localizer.read`."""
        reading = self.rpn.read(sample)

        def candidates(labels: Tensor) -> Detections:
            return self.update(sample.image, self.chosen(reading.candidates(labels), sample))

        return Reading(reading.scores, reading.classes, candidates)

    def update(self, image: Tensor, proposals: Detections) -> Detections:
        """The same boxes, scored and moved by R-CNN, each for its own class."""
        boxes, labels = proposals["boxes"], proposals["labels"]
        size = (int(image.shape[1]), int(image.shape[2]))
        with self.autocast(image.device):
            pooled = self.regions.pool([image], boxes, size)
            logits, codes = self.outputs(pooled, labels)
        moved = clip_boxes_to_image(decode(boxes, codes.float()), size)
        return {"boxes": moved, "scores": logits.float().sigmoid(), "labels": labels}

    def outputs(
        self, pooled: Tensor, labels: Tensor, dropout: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Logits (R,) and box codes (R, 4) of regions, each of its own class only.

        Args:
            pooled: (R, out_features).
            labels: (R,).
            dropout: see `Head.layers`.
        """
        hidden = self.head.layers(pooled, self.head.last, dropout)
        score, box = self.head.output(SCORES), self.head.output(BOXES)
        logits = (hidden * score.weight[labels]).sum(dim=1) + score.bias[labels]
        weight = box.weight.view(self.num_classes, 4, -1)[labels]
        codes = torch.einsum("rkd,rd->rk", weight, hidden) + box.bias.view(-1, 4)[labels]
        return logits, codes

    def sections(self, data: DataModule) -> list[Section]:
        """Anchors, and boxes before and after the R-CNN."""
        return rpn_sections(self.rpn, data, self)
