"""The stage that learns one linear SVM a class."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from detection.data.module import DataModule
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.regions.detector import SVM, RegionDetector
from detection.regions.feature_cache import FeatureCache, open_features
from detection.regions.region_reader import ImageRegions, RegionReader
from detection.regions.row_files import Ids, RowFiles
from detection.regions.svm import (
    ClassExamples,
    MiningRule,
    SVMOptions,
    hard_negatives,
)
from detection.regions.svm_solver import Problem, solve_all
from detection.runtime.distributed import gather_in_order, my_share
from detection.training.stage import Stage

log = logging.getLogger(__name__)

Found = list[tuple[int, Ids]]  # new examples of one image, by class


@dataclass(frozen=True, kw_only=True)
class SVMStageOptions:
    """How SVMs are trained, and on what.

    Attributes:
        options: of one SVM.
        rule: of the mining.
        images_per_round: images that are looked at with the same SVMs; the original has 1.
        negative_images: mine in this many random images; None: in all (rcnn_train.m).
        target_norm: features are scaled so that their mean norm is this (rcnn_feature_stats.m).
        norm_images: images that this mean is taken over ...
        norm_boxes: ... and boxes in each.
        memory_gb: of maps kept between the two passes.
        solver_gb: of features of the classes that are trained side by side.
        cache: features of all regions on disk, or None: they are computed when they are needed.
    """

    options: SVMOptions = SVMOptions()
    rule: MiningRule = MiningRule()
    images_per_round: int = 4
    negative_images: int | None = None
    target_norm: float = 20.0
    norm_images: int = 200
    norm_boxes: int = 200
    memory_gb: float = 1.5
    solver_gb: float = 2.0
    cache: FeatureCache | None = None

    def stage(
        self, model: RegionDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "SVMStage":
        """The stage that trains so."""
        return SVMStage(model, data, evaluator, seed, options=self)


class SVMStage(Stage):
    """Positives are the ground truth, negatives are mined in one pass over the images.

    Epoch 0 collects the positives, epoch 1 mines. Images come in rounds: within a round the SVMs
    stay, so that the result does not depend on the number of processes that share a round.
    Features of examples lie on disk; in memory are their ids, and the classes being trained.

    Args:
        model: whose SVMs are learnt.
        data: to learn from, with proposals.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "svm"
    model: RegionDetector

    def __init__(
        self,
        model: RegionDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: SVMStageOptions = SVMStageOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.automatic_optimization = False
        self.options = options
        self.rule = options.rule
        self.mined = self.images_to_mine() if self.is_needed() else []
        self.examples = [ClassExamples() for _ in range(model.num_classes)]
        self.scale = 1.0

    def learns(self) -> Sequence[nn.Module]:
        """The SVMs, if not by their gradient."""
        return [self.model.head.output(SVM)]

    def is_needed(self) -> bool:
        """Not where the softmax scores."""
        return self.model.scoring == "svm"

    def trainer_options(self) -> dict[str, Any]:
        """Two passes over different images; validation after the second."""
        return {
            "max_epochs": 2,
            "check_val_every_n_epoch": 2,
            "reload_dataloaders_every_n_epochs": 1,
            "enable_checkpointing": False,
        }

    def configure_optimizers(self) -> None:
        """None: liblinear optimises."""

    def train_dataloader(self) -> DataLoader[list[int]]:
        """Rounds of image indices; the first round is the first image only, as in the original."""
        images = range(len(self.data.splits["train"])) if self.current_epoch == 0 else self.mined
        rest, size = images[1:], self.options.images_per_round
        rounds = [[images[0]]] + [list(rest[i : i + size]) for i in range(0, len(rest), size)]
        return DataLoader(rounds, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def images_to_mine(self) -> list[int]:
        """Images that negatives are taken from: all objects in them are annotated."""
        images = self.data.splits["train"].searched
        most = self.options.negative_images
        if most is not None and most < len(images):
            generator = np.random.default_rng(self.seed)
            chosen = generator.choice(len(images), most, replace=False)
            images = [images[i] for i in sorted(chosen)]
        if not images:
            raise UserError(
                "no training image is annotated exhaustively, so there are no negatives for SVMs: "
                "add some with data.splits.train= (val1 in ILSVRC DET)"
            )
        return images

    def on_fit_start(self) -> None:
        """Open or compute the features, and measure their norm."""
        super().on_fit_start()
        model, dataset, options = self.model, self.data.splits["train"], self.options
        store = None
        if options.cache:
            store = open_features(
                options.cache, self.data.cache, f"{self.data.name}-train", model, dataset,
                self.device,
            )  # fmt: skip
        max_bytes = int(options.memory_gb * 2**30)
        self.reader = RegionReader(model, dataset, self.device, max_bytes, store)
        folder = Path(self.trainer.default_root_dir) / "examples"
        self.rows = RowFiles(folder, self.global_rank, model.head.width(model.layer))
        norm = self.reader.mean_norm(
            model.layer, options.norm_images, options.norm_boxes, self.seed
        )
        self.scale = options.target_norm / max(norm, 1e-12)

    @torch.no_grad()
    def training_step(self, images: list[int], batch_idx: int) -> None:
        """Look at this process's images of a round, and train the classes that have enough new."""
        mine = [images[i] for i in my_share(len(images))]
        look = self.positives if self.current_epoch == 0 else self.negatives
        own = [(image.index, look(image)) for image in self.reader.stream(mine)]
        for found in gather_in_order(own):
            self.keep(found)
        if self.current_epoch == 1:
            last = batch_idx == self.trainer.num_training_batches - 1
            limit = 0 if last or batch_idx == 0 else self.rule.retrain_after
            self.train_classes([c for c, e in enumerate(self.examples) if e.new > limit or last])
            if last:  # here, for Lightning validates before it ends the epoch
                self.use_svms()
            kept = float(sum(len(e.negatives) for e in self.examples))
            self.log("svm/negatives", kept, prog_bar=True, rank_zero_only=True, batch_size=1)

    def positives(self, image: ImageRegions) -> Found:
        """The objects of an image, by class."""
        if len(image.gt_boxes) == 0:
            return []
        objects = torch.arange(len(image.gt_boxes))  # they come before the proposals
        features = self.reader.features(image, self.model.layer, objects)
        ids = self.rows.append(features * self.scale)
        return [(int(c), ids[(image.labels == c).numpy()]) for c in image.labels.unique()]

    def negatives(self, image: ImageRegions) -> Found:
        """The hard negatives of an image, by class; each is written once, whatever its classes."""
        features = self.reader.features(image, self.model.layer) * self.scale
        with torch.autocast(features.device.type, enabled=False):  # half a bit decides here
            scores = features @ self.weight.t() + self.bias
        start = image.index == self.mined[0]  # no SVM is trained yet: all negatives are taken
        least = -torch.inf if start else self.rule.hard_min_score
        boxes, gt_boxes, labels = (
            t.to(self.device) for t in (image.boxes, image.gt_boxes, image.labels)
        )
        chosen = hard_negatives(scores, boxes, gt_boxes, labels, self.rule, least)
        every, index = torch.cat(chosen).unique(return_inverse=True)
        ids = self.rows.append(features[every])[index.cpu().numpy()]
        of_class = np.split(ids, np.cumsum([len(c) for c in chosen])[:-1])
        return [(label, some) for label, some in enumerate(of_class) if len(some)]

    def keep(self, found: Found) -> None:
        """Add an image's examples to those of their classes."""
        for label, ids in found:
            examples = self.examples[label]
            if self.current_epoch == 0:
                examples.positives = np.concatenate([examples.positives, ids])
            else:
                examples.add_negatives(ids)

    def train_classes(self, labels: list[int]) -> None:
        """Train some classes, shared among the processes, and drop negatives that became easy."""
        mine = [labels[i] for i in my_share(len(labels))]
        problems = [
            Problem(self.rows, self.examples[c].positives, self.examples[c].negatives) for c in mine
        ]
        threads = torch.get_num_threads()
        solved = solve_all(
            problems, self.options.options, self.seed, self.options.solver_gb * 2**30, threads
        )
        own = list(zip(mine, zip(mine, solved, strict=True), strict=True))
        for label, solution in gather_in_order(own):
            self.weight[label] = solution.weight.to(self.device)
            self.bias[label] = solution.bias.to(self.device)
            self.examples[label].evict(solution.scores >= self.rule.evict_below_score)
        svms = self.model.head.output(SVM)
        svms.weight.copy_(self.weight * self.scale)
        svms.bias.copy_(self.bias)

    def on_train_epoch_start(self) -> None:
        """Begin each pass with fresh SVMs."""
        self.weight = torch.zeros_like(self.model.head.output(SVM).weight)
        self.bias = torch.zeros_like(self.model.head.output(SVM).bias)

    def use_svms(self) -> None:
        """From now on the detector scores by its SVMs; say which classes have none."""
        self.model.is_fitted[0] = True
        names = self.data.class_names
        never = [names[c] for c, e in enumerate(self.examples) if not len(e.positives)]
        if never and self.global_rank == 0:
            log.warning(
                "%d of %d classes have no object in the training images and are never detected: %s",
                len(never), len(names), ", ".join(never[:20]),
            )  # fmt: skip

    def on_fit_end(self) -> None:
        """The features of examples are not needed any more."""
        if self.global_rank == 0:
            self.rows.remove()
