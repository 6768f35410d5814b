"""Training of the per-class RPN: few anchors of many images (ResNet, appendix C)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from detection.data.module import DataModule
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.images_stage import ImagesOptions, ImagesStage, rows_with_boxes
from detection.rpn.anchor_loss import AnchorOptions, anchor_losses, sample_anchors
from detection.rpn.crops import BoxCrop, BoxCrops
from detection.rpn.rpn import PerClassRPN
from detection.training.schedules import OptimizerFactory, ScheduleFactory, step_decay


@dataclass(frozen=True, kw_only=True)
class RPNOptions(AnchorOptions, ImagesOptions):
    """The training of the per-class RPN, as far as appendix C tells it.

    What it leaves open is Faster R-CNN's release's, of the same authors, fitted to crops of 224.
    See `AnchorOptions` and `ImagesOptions` too.

    Attributes:
        shorter_px: range of the shorter side that images are scaled to before they are cropped
            (ResNet, 3.4).
        min_share: a box that leaves the crop is clipped, and learnt if so much of it is inside, or
            it covers so much of the crop; anchors on other boxes are no background. Ours.
        cross_boundary: see `AnchorOptions`; Faster R-CNN leaves them out, whose objects are small
            beside its images. Ours, for objects here fill the crop.
        anchors_per_image: appendix C.
        class_weight: of the classifier's cross-entropy on the crop, while the convolutions learn:
            its maps would be taken from it. 0: another classifier names the classes. Ours.
        batch_size: images (appendix C: 256), for each process.
        epochs: over the images with boxes; not told.
        optimizer: ResNet's (3.4) at the rate of Faster R-CNN's release.
        schedule: 60,000 of 80,000 steps (the same).
        backpropagate: through the convolutions too; False: they stay as they are.
    """

    shorter_px: Sequence[int] = (256, 480)
    min_share: float = 0.5
    cross_boundary: bool = True
    anchors_per_image: int = 8
    class_weight: float = 1.0
    batch_size: int = 256
    epochs: int = 20
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.75], factor=0.1)
    backpropagate: bool = True

    def stage(
        self, model: PerClassRPN, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "RPNStage":
        """The stage that trains so."""
        return RPNStage(model, data, evaluator, seed, options=self)


class RPNStage(ImagesStage):
    """Learns, of each crop, eight anchors of its own class; nothing of other classes is computed.

    Args:
        model: that learns; its classifier is trained.
        data: with boxes.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: no training image has a box, or crops do not fit the scaled images.
    """

    name = "rpn"
    model: PerClassRPN
    options: RPNOptions

    def __init__(
        self,
        model: PerClassRPN,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        *,
        options: RPNOptions = RPNOptions(),
    ) -> None:
        side = model.classifier.features.backbone.input_px
        low, high = options.shorter_px
        if not side <= low <= high:
            raise UserError(
                f"model.stages.rpn.shorter_px={[low, high]}: a range from {side} on is wanted"
            )
        split, rows = data.split("train"), rows_with_boxes(data)
        crops = BoxCrops(split, rows, side, (low, high), options.min_share, options.flip)
        super().__init__(model, data, evaluator, seed, images=crops, options=options)
        self.side_px = side

    def learns(self) -> Sequence[nn.Module]:
        """The two outputs, or what stands under them too: the classifier, if it has a loss."""
        model, options = self.model, self.options
        if not options.backpropagate:
            return [model.head]
        classifier = model.classifier
        return [model.head, classifier if options.class_weight else classifier.features.backbone]

    def training_step(self, batch: list[BoxCrop], batch_idx: int) -> Tensor:
        """Logistic loss of the sampled anchors and smooth ℓ1 of those on objects."""
        options, model = self.options, self.model
        with torch.set_grad_enabled(options.backpropagate):
            maps = model.maps(torch.stack([crop.image for crop in batch]))
        features = model.head.features(maps)
        anchors, size = model.anchor_boxes(maps), (self.side_px, self.side_px)
        sampled = [
            sample_anchors(
                anchors, crop.boxes, crop.hidden, size, options,
                np.random.default_rng(crop.seed + 1),
            )
            for crop in batch
        ]  # fmt: skip
        counts = torch.tensor([len(some.anchor) for some in sampled])
        labels = torch.tensor([crop.label for crop in batch])
        image = torch.arange(len(batch)).repeat_interleave(counts)
        cell = torch.cat([some.anchor for some in sampled]) // len(model.anchors)
        across, device = features.shape[3], self.device
        rows = features[
            image.to(device), :, (cell // across).to(device), (cell % across).to(device)
        ]  # (R, D)
        of_scores, of_boxes = anchor_losses(model.head, rows, labels[image], sampled, options)
        self.log("rpn/score_loss", of_scores, prog_bar=True, batch_size=len(batch))
        self.log("rpn/box_loss", of_boxes, prog_bar=True, batch_size=len(batch))
        loss = of_scores + options.box_weight * of_boxes
        if options.backpropagate and options.class_weight:
            classifier = model.classifier
            of_classes = classifier.logits(classifier.features(maps)).float()
            loss = loss + options.class_weight * F.cross_entropy(of_classes, labels.to(device))
        return self.check_finite(loss, self.names(batch))
