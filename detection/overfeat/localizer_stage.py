"""Training of OverFeat's box regressor (section 4.2)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD

from detection.boxes import box_iou, inside
from detection.data.module import DataModule
from detection.evaluation.evaluator import Evaluator
from detection.localization.box_codes import Loss, box_loss
from detection.localization.images_stage import ImagesStage, rows_with_boxes
from detection.localization.training_views import ViewedImage, training_views
from detection.overfeat.localizer import OverFeatLocalizer
from detection.overfeat.options import OverFeatOptions
from detection.runtime.distributed import gather_in_order, is_first_process, rank
from detection.training.schedules import OptimizerFactory

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RegressorOptions(OverFeatOptions):
    """OverFeat's training of its regressor, as far as the paper tells it; see `OverFeatOptions`.

    Scales are "the same set" as in classification (4.2, table 5). Learning through the whole
    network is section 6's wish; the classifier then learns on at the same windows, or its maps
    would be taken from it. Without, layers 1 to 5 stay (4.2).

    Attributes:
        min_share: a window learns a box of which it sees at least so much (4.2).
        loss: "l2" (4.2), or "smooth_l1", "iou", "giou" (section 6's wishes).
        windows_per_image: at most so many of an image's windows, at random over all scales; None:
            all, as the paper's convolutions do.
        optimizer: classification's (3.1) at a rate of ours, for the paper names no other.
    """

    min_share: float = 0.5
    loss: Loss = "l2"
    windows_per_image: int | None = None
    optimizer: OptimizerFactory = partial(SGD, lr=0.01, momentum=0.6, weight_decay=1e-5)

    def stage(
        self, model: OverFeatLocalizer, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "RegressorStage":
        """The stage that trains so."""
        return RegressorStage(model, data, evaluator, seed, options=self)


class RegressorStage(ImagesStage):
    """Learns the boxes of objects from the windows that see half of one or more.

    Args:
        model: whose regressor learns; its classifier is trained.
        data: with boxes.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: no training image has a box.
    """

    name = "regress"
    model: OverFeatLocalizer
    options: RegressorOptions

    def __init__(
        self,
        model: OverFeatLocalizer,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        *,
        options: RegressorOptions,
    ) -> None:
        backbone = model.classifier.features.backbone
        images = training_views(
            data, rows_with_boxes(data), backbone, model.windows.pooling.span, options
        )
        super().__init__(model, data, evaluator, seed, images=images, options=options)
        self.store = images.store
        self.boxes_seen = self.boxes_missed = 0

    def learns(self) -> Sequence[nn.Module]:
        """The regressor, or the classifier too."""
        model = self.model
        return [model.regressor, *([model.classifier] if self.options.backpropagate else [])]

    def training_step(self, batch: list[ViewedImage], batch_idx: int) -> Tensor:
        """The loss of the boxes, and of the classes if the whole network learns."""
        options, model = self.options, self.model
        parts = [self.windows_of(image) for image in batch]
        rows, windows, boxes = (
            torch.cat([value for part in parts for value in part[n]]) for n in (0, 1, 2)
        )
        labels = [self.images.split.target(image.index)["label"] for image in batch]
        counts = [sum(len(value) for value in part[1]) for part in parts]
        hidden = model.regressor.layers(rows, dropout=options.dropout)
        said = torch.cat([
            model.outputs(some, label[None].to(self.device))[:, 0]
            for some, label in zip(hidden.split(counts), labels, strict=True)
        ])  # fmt: skip
        loss = box_loss(said.float(), windows, boxes, model.code, options.loss)
        self.log("regress/box_loss", loss, prog_bar=True, batch_size=max(1, len(rows)))
        if options.backpropagate:
            features = torch.cat([value for part in parts for value in part[3]])
            of_window = (
                torch.stack(labels)
                .to(self.device)
                .repeat_interleave(torch.tensor(counts, device=self.device), output_size=len(rows))
            )
            logits = model.classifier.logits(features, options.dropout).float()
            # without a window there is a gradient too, of zeros: processes wait for each other's
            loss = loss + (F.cross_entropy(logits, of_window) if len(rows) else logits.sum())
        return self.check_finite(loss, self.names(batch))

    def windows_of(self, image: ViewedImage) -> tuple[list[Tensor], ...]:
        """Of the windows that learn, a scale each: features, windows, boxes, classifier's features.

        Windows are chosen on the CPU, from numbers that are there: no step waits for a device.
        """
        model, options = self.model, self.options
        with torch.set_grad_enabled(options.backpropagate):
            maps = self.store.maps(image, model.maps)
        gt = self.images.split.target(image.index)["boxes"]
        windows = [model.windows.boxes(m.shape[2:]) for m in maps]
        in_view = [frame.to_view(gt) for frame in image.frames]
        pairs = list(zip(windows, in_view, strict=True))
        shares = [inside(boxes, some) >= options.min_share for some, boxes in pairs]  # (N, P)
        if self.current_epoch == 0:
            self.boxes_seen += len(gt)
            self.boxes_missed += int((~torch.stack([s.any(1) for s in shares]).any(0)).sum())
        places = some_places(
            [torch.nonzero(s.any(dim=0))[:, 0] for s in shares], options.windows_per_image,
            np.random.default_rng(image.seed),
        )  # fmt: skip
        found: tuple[list[Tensor], ...] = ([], [], [], [])
        for one, (some, boxes), share, chosen in zip(maps, pairs, shares, places, strict=True):
            # of several boxes that a window sees, the one that it fits best
            overlap = box_iou(boxes, some[chosen]).where(share[:, chosen], -1.0)
            which = overlap.argmax(dim=0)
            on_device = chosen.to(self.device)
            found[0].append(model.windows.rows(one, on_device))
            found[1].append(some[chosen].to(self.device))
            found[2].append(boxes[which].to(self.device))
            if options.backpropagate:
                means = model.windows.means(one, on_device) if model.averages else found[0][-1]
                found[3].append(means)
        return found

    def on_train_epoch_end(self) -> None:
        """Report, once, which boxes no window sees."""
        if self.current_epoch > 0:
            return
        counts = gather_in_order([(rank(), (self.boxes_missed, self.boxes_seen))])
        missed, seen = (sum(column) for column in zip(*counts, strict=True))
        if missed and is_first_process():
            log.warning(
                "%d of %d boxes (%.1f %%) are seen by half in no window, and nothing is learnt of "
                "them (model.stages.regress.min_share, sizes)",
                missed, seen, 100 * missed / seen,
            )  # fmt: skip


def some_places(
    found: Sequence[Tensor], most: int | None, generator: np.random.Generator
) -> list[Tensor]:
    """At most so many of the places of several maps, at random over all of them.

    Args:
        found: of each map, numbers (n,) of its places.
        most: of all; None: all.
        generator: of the choice.
    """
    total = sum(len(places) for places in found)
    if most is None or total <= most:
        return list(found)
    chosen = np.zeros(total, bool)
    chosen[generator.permutation(total)[:most]] = True
    ends = np.cumsum([len(places) for places in found])[:-1]
    return [
        places[torch.from_numpy(mine)]
        for places, mine in zip(found, np.split(chosen, ends), strict=True)
    ]
