"""Training of the R-CNN on the RPN's boxes: regions of many images in each batch (appendix C)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, IterableDataset

from detection.boxes import encode
from detection.data.module import DataModule
from detection.data.samples import as_image
from detection.disk.arrays import Part, RaggedArray, computed, fingerprint, write_part
from detection.disk.checkpoints import weights_digest
from detection.disk.images import ImageCache
from detection.evaluation.evaluator import Evaluator
from detection.localization.images_stage import rows_with_boxes
from detection.matching import Matcher
from detection.rpn.rcnn import RPNWithRCNN
from detection.rpn.training import RPNOptions, RPNStage
from detection.runtime.progress import progress
from detection.training.schedules import (
    OptimizerFactory,
    ScheduleFactory,
    TrainingLength,
    step_decay,
)
from detection.training.stage import Stage, mixed


@dataclass(frozen=True, kw_only=True)
class RPNFirst(RPNOptions):
    """The RPN's training, as a stage before the R-CNN's."""

    def stage(  # type: ignore[override]
        self, model: RPNWithRCNN, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> RPNStage:
        """The stage that trains so."""
        return RPNStage(model.rpn, data, evaluator, seed, options=self)


@dataclass(frozen=True, kw_only=True)
class RCNNOptions:
    """The training of the R-CNN, as far as appendix C tells it; else R-CNN's.

    Attributes:
        matcher: which boxes are objects (R-CNN, 2.3: from an overlap of 0.5 on) and background.
        batch_size: regions, of as many images (appendix C: 256), for each process.
        foreground_fraction: share of object regions (R-CNN, 2.3: 32 of 128).
        length: not told.
        optimizer: R-CNN's rate (2.3), ResNet's momentum and decay (3.4).
        schedule: not told.
        dropout: after fc6 and fc7, where there are any.
        beta: of smooth ℓ1, where a square turns to a line (Fast R-CNN, 2.3: 1).
        box_weight: of the boxes' loss.
        flip: mirror half of the regions.
        clip_norm: limit of the gradient's norm; None for none.
        backpropagate: through the convolutions too; False: they stay as they are.
    """

    matcher: Matcher = Matcher(0.5, 0.0, 0.5)
    batch_size: int = 256
    foreground_fraction: float = 0.25
    length: TrainingLength = TrainingLength(0.5)
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=1e-4)
    schedule: ScheduleFactory | None = partial(step_decay, at=[0.75], factor=0.1)
    dropout: float = 0.0
    beta: float = 1.0
    box_weight: float = 1.0
    flip: bool = True
    clip_norm: float | None = None
    backpropagate: bool = True

    def stage(
        self, model: RPNWithRCNN, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "RCNNStage":
        """The stage that trains so."""
        return RCNNStage(model, data, evaluator, seed, options=self)


class Regions(NamedTuple):
    """A batch of regions of as many images.

    Attributes:
        images: (3, H, W) uint8 of each region.
        boxes: (R, 4).
        labels: (R,) of the images.
        is_object: (R,) 1.0 or 0.0.
        codes: (R, 4) that `decode` shall take; of background 0.
        mirror: (R,) bool.
    """

    images: list[Tensor]
    boxes: Tensor
    labels: Tensor
    is_object: Tensor
    codes: Tensor
    mirror: Tensor


class RCNNStage(Stage):
    """Learns to score and move the boxes that the RPN found for the true class of each image.

    They are found once, and kept on disk under the name of the RPN's weights.

    Args:
        model: whose RPN is trained.
        data: with boxes.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.

    Raises:
        UserError: no training image has a box.
    """

    name = "rcnn"
    model: RPNWithRCNN

    def __init__(
        self,
        model: RPNWithRCNN,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        *,
        options: RCNNOptions = RCNNOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.options = options
        self.split = data.split("train")
        self.rows = rows_with_boxes(data)
        self.epochs, self.steps = options.length.epochs(len(self.rows))
        self.drawer: RegionDrawer | None = None

    def learns(self) -> Sequence[nn.Module]:
        """The two outputs and what stands under them, or its fc layers only."""
        model = self.model
        return [model.head, *([model.regions.backbone] if self.options.backpropagate else [])]

    def trainer_options(self) -> dict[str, Any]:
        """New regions in each epoch."""
        return {
            "max_epochs": self.epochs,
            "reload_dataloaders_every_n_epochs": 1,
            "gradient_clip_val": self.options.clip_norm,
        }

    def configure_optimizers(self) -> tuple[list[Optimizer], list[Any]]:
        """The config's optimiser and schedule."""
        return self.optimized(
            self.options.optimizer, self.options.schedule, [self.steps] * self.epochs
        )

    def train_dataloader(self) -> DataLoader[Regions]:
        """The batches of an epoch."""
        if self.drawer is None:
            self.drawer = RegionDrawer(self.split, self.rows, self.proposals(), self.options)
        seed = mixed(self.seed, self.current_epoch, self.global_rank)
        return DataLoader(Batches(self.drawer, self.steps, seed), batch_size=None)

    def proposals(self) -> RaggedArray:
        """The RPN's best boxes of the true class of each training image with boxes, on disk."""
        model, rpn = self.model, self.model.rpn
        settings = (model.select, rpn.views.settings(), rpn.anchors, rpn.max_candidates,
                    rpn.precision)  # fmt: skip
        files = [self.split.path(int(row)) for row in self.rows]
        name = f"{self.data.name}-rpn-{fingerprint(weights_digest(rpn), settings, files=files)}"
        folder, about = self.data.cache / "proposals" / name, {"settings": repr(settings)}
        return computed(folder, about, len(self.rows), self.find, width=4)

    @torch.no_grad()
    def find(self, parts: Sequence[Part]) -> None:
        """Find the boxes of some images, part by part."""
        model = self.model
        with progress("boxes of the RPN", sum(len(items) for _, items in parts)) as advance:
            for file, items in parts:
                found = []
                for item in items:
                    sample = self.split.sample(int(self.rows[item]), model.rpn.views.decode_px)
                    sample = model.rpn.views(sample)
                    sample.views = [[v.to(self.device) for v in kind] for kind in sample.views]
                    label = sample.target["label"][None].to(self.device)
                    found.append(model.propose(sample, label)["boxes"].cpu().numpy())
                write_part(file, found)
                advance(len(items))

    def training_step(self, batch: Regions, batch_idx: int) -> Tensor:
        """Logistic loss of the regions and smooth ℓ1 of those on objects."""
        options, model = self.options, self.model
        with torch.set_grad_enabled(options.backpropagate):
            pooled = model.regions(batch.images, list(batch.boxes[:, None]), batch.mirror)
        logits, codes = model.outputs(pooled, batch.labels, options.dropout)
        of_scores = F.binary_cross_entropy_with_logits(logits.float(), batch.is_object)
        errors = F.smooth_l1_loss(codes.float(), batch.codes, beta=options.beta, reduction="none")
        of_boxes = (errors.sum(dim=1) * batch.is_object).mean()
        self.log("rcnn/score_loss", of_scores, prog_bar=True, batch_size=len(logits))
        self.log("rcnn/box_loss", of_boxes, prog_bar=True, batch_size=len(logits))
        loss = of_scores + options.box_weight * of_boxes
        return self.check_finite(loss, f"{len(logits)} regions")


class RegionDrawer:
    """Draws regions from all images at once, objects and background.

    Args:
        split: images with boxes.
        rows: which of them.
        proposals: boxes of each of these.
        options: which are objects, and how many are drawn.
    """

    def __init__(
        self, split: Any, rows: NDArray[np.int64], proposals: RaggedArray, options: RCNNOptions
    ) -> None:
        self.split, self.rows, self.options = split, rows, options
        self.images = ImageCache()
        boxes, item, is_object, gt = [], [], [], []
        for number, row in enumerate(rows.tolist()):
            truth = split.target(row)["boxes"]
            # the true boxes are regions too (R-CNN's code)
            some = torch.cat([truth, torch.from_numpy(np.array(proposals[number]))])
            matches = options.matcher(some, truth)
            usable = matches.is_object | matches.is_background
            boxes.append(some[usable])
            is_object.append(matches.is_object[usable])
            gt.append(truth[matches.gt[usable]])
            item.append(torch.full((int(usable.sum()),), number))
        self.boxes, self.gt = torch.cat(boxes), torch.cat(gt)
        self.item, self.is_object = torch.cat(item), torch.cat(is_object)
        self.places = [
            torch.nonzero(mask)[:, 0].numpy() for mask in (self.is_object, ~self.is_object)
        ]

    def draw(self, generator: np.random.Generator) -> Regions:
        """One batch; where there is no background, objects alone."""
        wanted = max(1, round(self.options.batch_size * self.options.foreground_fraction))
        counts = (wanted, self.options.batch_size - wanted)
        pairs = zip(self.places, counts, strict=True)
        drawn = [generator.choice(places, count) for places, count in pairs if len(places)]
        chosen = torch.from_numpy(np.concatenate(drawn))
        rows = [int(self.rows[item]) for item in self.item[chosen].tolist()]
        images = [as_image(self.images[self.split.path(row)]).contiguous() for row in rows]
        labels = torch.stack([self.split.target(row)["label"] for row in rows])
        mirror = torch.from_numpy(generator.random(len(rows)) < (0.5 if self.options.flip else 0.0))
        boxes, is_object = self.boxes[chosen], self.is_object[chosen].float()
        codes = torch.zeros(len(chosen), 4)  # of background
        objects = self.is_object[chosen]
        codes[objects] = encode(boxes[objects], self.gt[chosen][objects])
        # what is seen in a mirrored region lies on its other side
        codes[:, 0] = torch.where(mirror, -codes[:, 0], codes[:, 0])
        return Regions(images, boxes, labels, is_object, codes, mirror)


class Batches(IterableDataset[Regions]):
    """So many batches, all by a seed."""

    def __init__(self, drawer: RegionDrawer, steps: int, seed: int) -> None:
        self.drawer, self.steps, self.seed = drawer, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Regions]:
        generator = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            yield self.drawer.draw(generator)
