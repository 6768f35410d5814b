"""Training of the RPN that proposes: objects of any class, whole images (Ren et al. 2015, 3.1)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader

from detection.data.module import DataModule
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.images_stage import ImagesStage
from detection.localization.training_views import ViewedImage, ViewsOptions, training_views
from detection.localization.views import ScaledViews
from detection.rpn.anchor_loss import AnchorOptions, anchor_losses, sample_anchors
from detection.rpn.proposals import RPNSearch
from detection.runtime.distributed import is_first_process
from detection.training.schedules import OptimizerFactory, ScheduleFactory, step_decay

log = logging.getLogger(__name__)

NO_BOXES = torch.zeros(0, 4)


class HasSearch(Protocol):
    """A region detector whose proposals a network finds."""

    search: RPNSearch


@dataclass(frozen=True, kw_only=True)
class ProposalOptions(AnchorOptions, ViewsOptions):
    """The training of an RPN as Faster R-CNN has it; see `AnchorOptions` and `ViewsOptions` too.

    Attributes:
        sizes: scales to learn at.
        batch_size: images (3.1.3: one), for each process.
        epochs: 80,000 steps on the 5,011 images of VOC 2007.
        optimizer: 3.1.3; the release.
        schedule: 60,000 of 80,000 steps.
        backpropagate: through the convolutions too.
    """

    sizes: Sequence[Sequence[int] | int] = (600,)
    batch_size: int = 1
    epochs: int = 16
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.75], factor=0.1)
    backpropagate: bool = True

    def stage(
        self, model: HasSearch, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "ProposalStage":
        """The stage that trains so."""
        return ProposalStage(model, data, evaluator, seed, options=self)


class ProposalStage(ImagesStage):
    """Learns where objects are, of whatever class; then finds the boxes of every split.

    Args:
        model: a region detector; its search learns.
        data: with objects.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: there is no object to learn, or the convolutions are random and do not learn.
    """

    name = "propose"
    model: Any  # a `HasSearch`
    options: ProposalOptions

    def __init__(
        self,
        model: HasSearch,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        *,
        options: ProposalOptions,
    ) -> None:
        backbone, split = model.search.backbone, data.split("train")
        # where not all objects are annotated, nothing is surely background
        rows = np.array([n for n in split.searched if len(split.gt(n).labels)], np.int64)
        if len(rows) == 0:
            raise UserError(f"data={data.name}: no training image has all its objects annotated")
        if not (backbone.pretrained or options.backpropagate):
            raise UserError(
                "the convolutions are random and do not learn: give backbone.weights=, or set "
                "proposals.training.backpropagate=true"
            )
        if is_first_process():
            taken = "those of backbone.weights" if backbone.pretrained else "random"
            log.info("proposals are learnt; the network's features start as %s", taken)
        images = training_views(data, rows, backbone, 1, options)
        check_anchors(model.search, options)
        super().__init__(model, data, evaluator, seed, images=images, options=options)  # type: ignore[arg-type]
        self.store = images.store

    @property
    def rpn(self) -> RPNSearch:
        """What learns."""
        search: RPNSearch = self.model.search
        return search

    def learns(self) -> Sequence[nn.Module]:
        """The RPN's outputs, or its convolutions too."""
        return [self.rpn.head, *([self.rpn.backbone] if self.options.backpropagate else [])]

    def val_dataloader(self) -> list[DataLoader[object]]:
        """Nothing: a detector cannot detect yet."""
        return []

    def on_fit_start(self) -> None:
        """Whatever comes of this stage has been trained."""
        super().on_fit_start()
        self.rpn.is_trained.fill_(True)

    def on_train_end(self) -> None:
        """Find the boxes of all splits while the network is where it is fast."""
        self.rpn.eval()
        self.model.prepare(self.data)

    def training_step(self, batch: list[ViewedImage], batch_idx: int) -> Tensor:
        """The loss of the anchors that are sampled from each view of each image."""
        options, rpn = self.options, self.rpn
        sampled, rows = [], []
        for image in batch:
            with torch.set_grad_enabled(options.backpropagate):
                every_map = self.store.maps(image, rpn.maps)
            gt = self.data.split("train").gt(image.index).boxes
            generator = np.random.default_rng(image.seed)
            for maps, frame in zip(every_map, image.frames, strict=True):
                anchors, boxes = rpn.anchor_boxes(maps), frame.to_view(gt)
                some = sample_anchors(anchors, boxes, NO_BOXES, frame.size, options, generator)
                cell = (some.anchor // len(rpn.anchors)).to(self.device)
                rows.append(rpn.head.features(maps)[0].flatten(1).T[cell])
                sampled.append(some)
        taken = torch.cat(rows)
        labels = torch.zeros(len(taken), dtype=torch.long)
        of_scores, of_boxes = anchor_losses(rpn.head, taken, labels, sampled, options)
        self.log("propose/score_loss", of_scores, prog_bar=True, batch_size=len(batch))
        self.log("propose/box_loss", of_boxes, prog_bar=True, batch_size=len(batch))
        return self.check_finite(of_scores + options.box_weight * of_boxes, self.names(batch))


def check_anchors(rpn: RPNSearch, options: ProposalOptions) -> None:
    """Check that there are anchors to learn.

    Raises:
        UserError: all leave the smallest scale of an image, and those that do are left out.
    """
    least = min(ScaledViews.shorter(size) for size in options.sizes)
    smallest = min(rpn.anchors.sizes_px)
    if not options.cross_boundary and smallest > least:
        raise UserError(
            f"proposals.search.anchors.sizes_px={list(rpn.anchors.sizes_px)}: every anchor leaves "
            f"an image of {least} pixels: give smaller ones, or a larger proposals.search.sizes"
        )
