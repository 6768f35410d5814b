"""The stage that learns one linear SVM a class."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from detection.data.detection_data import DetectionData
from detection.errors import UserError
from detection.regions.detector import RegionDetector
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
from detection.training.detection_stage import DetectionStage

log = logging.getLogger(__name__)

Found = list[tuple[int, Ids]]  # new examples of one image, by class


class SVMStage(DetectionStage):
    """Positives are the truths, negatives are mined in one pass over the images.

    Epoch 0 collects the positives, epoch 1 mines. Images come in rounds: within a round the SVMs
    stay, so that the result does not depend on the number of processes that share a round.
    Features of examples lie on disk; in memory are their ids, and the classes being trained.

    Args:
        detector: whose `svm` is learnt.
        data: to learn from.
        seed: see `DetectionStage`.
        options: of one SVM.
        rule: of the mining.
        images_per_round: see above.
        negative_images: mine in so many random images; None: in all.
        target_norm: features are scaled so that their mean norm is this.
        norm_images: images that this mean is taken over ...
        norm_boxes: ... and boxes in each.
        memory_gb: of maps kept between the two epochs.
        solver_gb: of features of the classes that are trained side by side.
        cache: features of all regions on disk, or None: they are computed when they are needed.
    """

    name = "svm"
    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        options: SVMOptions,
        rule: MiningRule,
        images_per_round: int,
        negative_images: int | None,
        target_norm: float,
        norm_images: int,
        norm_boxes: int,
        memory_gb: float,
        solver_gb: float,
        cache: FeatureCache | None,
    ) -> None:
        super().__init__(detector, data, seed)
        self.automatic_optimization = False
        self.options = options
        self.rule = rule
        self.images_per_round = images_per_round
        self.negative_images = negative_images
        self.mined = self.images_to_mine() if self.is_needed() else []
        self.target_norm = target_norm
        self.norm_sample = (norm_images, norm_boxes)
        self.max_bytes = int(memory_gb * 2**30)
        self.solver_bytes = solver_gb * 2**30
        self.cache = cache
        self.examples = [ClassExamples() for _ in range(detector.num_classes)]
        self.scale = 1.0
        detector.requires_grad_(False)
        detector.svm.requires_grad_(True)  # what is learnt, if not by its gradient

    def is_needed(self) -> bool:
        """Not where the softmax scores."""
        return self.detector.scoring == "svm"

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
        """Rounds of image indices; the first round is the first image alone, as in the original."""
        images = range(len(self.data.datasets["train"])) if self.current_epoch == 0 else self.mined
        rest, size = images[1:], self.images_per_round
        rounds = [[images[0]]] + [list(rest[i : i + size]) for i in range(0, len(rest), size)]
        return DataLoader(rounds, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def images_to_mine(self) -> list[int]:
        """Images that negatives are taken from: all objects in them are annotated."""
        images = self.data.datasets["train"].searched
        if self.negative_images is not None and self.negative_images < len(images):
            generator = np.random.default_rng(self.seed)
            chosen = generator.choice(len(images), self.negative_images, replace=False)
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
        detector, dataset = self.detector.eval(), self.data.datasets["train"]
        store = None
        if self.cache:
            folder, name = self.data.cache / "features", f"{self.data.name}-train"
            store = open_features(self.cache, folder, name, detector, dataset, self.device)
        self.reader = RegionReader(detector, dataset, self.device, self.max_bytes, store)
        self.rows = RowFiles(
            Path(self.trainer.default_root_dir) / "examples",
            self.global_rank,
            detector.width(detector.layer),
        )
        norm = self.reader.mean_norm(detector.layer, *self.norm_sample, self.seed)
        self.scale = self.target_norm / max(norm, 1e-12)

    @torch.no_grad()
    def training_step(self, images: list[int], index: int) -> None:
        """Look at this process's images of a round, and train the classes that have enough new."""
        self.detector.eval()
        mine = [images[i] for i in my_share(len(images))]
        look = self.positives if self.current_epoch == 0 else self.negatives
        own = [(image.index, look(image)) for image in self.reader.stream(mine)]
        for found in gather_in_order(own):
            self.keep(found)
        if self.current_epoch == 1:
            last = index == self.trainer.num_training_batches - 1
            limit = 0 if last or index == 0 else self.rule.retrain_after
            self.train_classes([c for c, e in enumerate(self.examples) if e.new > limit or last])
            if last:  # here, for Lightning validates before it ends the epoch
                self.use_svms()
            kept = float(sum(len(e.negatives) for e in self.examples))
            self.log("svm/negatives", kept, prog_bar=True, rank_zero_only=True, batch_size=1)

    def positives(self, image: ImageRegions) -> Found:
        """The truths of an image, by class."""
        if len(image.truths) == 0:
            return []
        truths = torch.arange(len(image.truths))
        features = self.reader.features(image, self.detector.layer, truths)
        ids = self.rows.append(features * self.scale)
        return [(int(c), ids[(image.labels == c).numpy()]) for c in image.labels.unique()]

    def negatives(self, image: ImageRegions) -> Found:
        """The hard negatives of an image, by class; each is written once, whatever its classes."""
        features = self.reader.features(image, self.detector.layer) * self.scale
        with torch.autocast(features.device.type, enabled=False):  # half a bit decides here
            scores = features @ self.weight.t() + self.bias
        start = image.index == self.mined[0]  # no SVM is trained yet: all negatives are taken
        least = -torch.inf if start else self.rule.hard_min_score
        boxes, truths, labels = (
            t.to(self.device) for t in (image.boxes, image.truths, image.labels)
        )
        chosen = hard_negatives(scores, boxes, truths, labels, self.rule, least)
        every, place = torch.cat(chosen).unique(return_inverse=True)
        ids = self.rows.append(features[every])[place.cpu().numpy()]
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
        solved = solve_all(problems, self.options, self.seed, self.solver_bytes, threads)
        own = list(zip(mine, zip(mine, solved, strict=True), strict=True))
        for label, solution in gather_in_order(own):
            self.weight[label] = solution.weight.to(self.device)
            self.bias[label] = solution.bias.to(self.device)
            self.examples[label].evict(solution.scores >= self.rule.evict_below_score)
        self.detector.svm.weight.copy_(self.weight * self.scale)
        self.detector.svm.bias.copy_(self.bias)

    def on_train_epoch_start(self) -> None:
        """Begin each pass with fresh SVMs."""
        self.weight = torch.zeros_like(self.detector.svm.weight)
        self.bias = torch.zeros_like(self.detector.svm.bias)

    def use_svms(self) -> None:
        """From now on the detector scores by its SVMs; say which classes have none."""
        self.detector.learnt[0] = True
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
