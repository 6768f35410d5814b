"""The stage that learns to move boxes onto objects (R-CNN, appendix C; SPP-net, section 4.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from detection.boxes import encode
from detection.data.module import DataModule
from detection.evaluation.evaluator import Evaluator
from detection.matching import Matcher
from detection.regions.detector import BOX_REGRESSOR, RegionDetector
from detection.regions.feature_cache import FeatureCache, find_features
from detection.regions.region_reader import ImageRegions, RegionReader
from detection.regions.ridge import fit_ridge
from detection.regions.row_files import Ids, RowFiles
from detection.runtime.distributed import gather_in_order, my_share
from detection.training.stage import Stage

BLOCK_ROWS = 8192  # rows of features brought into memory at a time

Found = tuple[Ids, Tensor, Tensor]  # of one image: (n,) ids of features, labels, (n, 4) targets


@dataclass(frozen=True, kw_only=True)
class BoxRegressionOptions:
    """Which boxes the regressors learn from, and how.

    Attributes:
        matcher: a box that it takes for an object is an example of that object's class (SPP-net,
            4.1; R-CNN, appendix C: more than 0.6).
        ridge: lambda (R-CNN, appendix C; 4000 in spp_exp_bbox_reg_train_and_test_voc.m).
        target_norm: features are scaled so that their mean norm is this (rcnn_feature_stats.m).
        norm_images: images that this mean is taken over ...
        norm_boxes: ... and boxes in each.
        memory_gb: of maps kept from one pass for the next.
        cache: features of all regions on disk, if the SVMs left them there.
    """

    matcher: Matcher = Matcher(foreground_min_iou=0.5)
    ridge: float = 1000.0
    target_norm: float = 20.0
    norm_images: int = 200
    norm_boxes: int = 200
    memory_gb: float = 4.0
    cache: FeatureCache | None = None

    def stage(
        self, model: RegionDetector, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "BoxRegressionStage":
        """The stage that trains so."""
        return BoxRegressionStage(model, data, evaluator, seed, options=self)


class BoxRegressionStage(Stage):
    """One ridge regression a class, from pooled features of boxes near its objects.

    Args:
        model: whose box regressors are learnt.
        data: to learn from, with proposals.
        evaluator: see `Stage`.
        seed: see `Stage`.
        options: how.
    """

    name = "box_regression"
    model: RegionDetector

    def __init__(
        self,
        model: RegionDetector,
        data: DataModule,
        evaluator: Evaluator,
        seed: int = 0,
        options: BoxRegressionOptions = BoxRegressionOptions(),
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.automatic_optimization = False
        self.options = options
        self.examples: list[tuple[int, Found]] = []

    def learns(self) -> Sequence[nn.Module]:
        """The regressors, if not by their gradient."""
        return [self.model.head.output(BOX_REGRESSOR)]

    def trainer_options(self) -> dict[str, Any]:
        """One pass."""
        return {"max_epochs": 1, "enable_checkpointing": False}

    def configure_optimizers(self) -> None:
        """None: the solution has a closed form."""

    def train_dataloader(self) -> DataLoader[list[int]]:
        """Rounds of images that have proposals; all processes have as many rounds."""
        images, size = self.data.splits["train"].searched, self.trainer.world_size
        rounds = [images[i : i + size] for i in range(0, len(images), size)]
        return DataLoader(rounds, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Open the features and the files of examples, and measure the features' norm."""
        super().on_fit_start()
        model, dataset, options = self.model, self.data.splits["train"], self.options
        store = None
        if options.cache and options.cache.layer == "pool5":
            name = f"{self.data.name}-train"
            store = find_features(options.cache, self.data.cache, name, model, dataset)
        max_bytes = int(options.memory_gb * 2**30)
        self.reader = RegionReader(model, dataset, self.device, max_bytes, store)
        norm = self.reader.mean_norm("pool5", options.norm_images, options.norm_boxes, self.seed)
        self.scale = options.target_norm / max(norm, 1e-12)
        folder = Path(self.trainer.default_root_dir) / "examples"
        self.rows = RowFiles(folder, self.global_rank, model.head.width("pool5"))

    @torch.no_grad()
    def training_step(self, images: list[int], batch_idx: int) -> None:
        """Collect the examples of this process's images of a round; after the last one, learn."""
        for image in self.reader.stream([images[i] for i in my_share(len(images))]):
            self.collect(image)
        count = sum(len(ids) for _, (ids, _, _) in self.examples)
        self.log("box_regression/examples", float(count), prog_bar=True, batch_size=1)
        if batch_idx == self.trainer.num_training_batches - 1:
            self.learn()  # here, for Lightning validates before it ends the epoch

    def collect(self, image: ImageRegions) -> None:
        """Features and targets of the windows of an image that are near an object."""
        matches = self.options.matcher(image.boxes, image.gt_boxes)
        near = matches.is_object.nonzero().flatten()
        if len(near) == 0:
            return
        features = self.reader.features(image, "pool5", near)
        targets = encode(image.boxes[near], image.gt_boxes[matches.gt[near]])
        labels = image.labels[matches.gt[near]]
        self.examples.append((image.index, (self.rows.append(features), labels, targets)))

    def learn(self) -> None:
        """Solve for every class, shared among the processes."""
        every = gather_in_order(self.examples)
        if every:
            ids = np.concatenate([found[0] for found in every])
            labels, targets = (torch.cat(parts) for parts in list(zip(*every, strict=True))[1:])
            own = []
            for label in my_share(self.model.num_classes):
                mine = labels == label
                own.append((label, (label, *self.solve(ids[mine.numpy()], targets[mine]))))
            for label, weight, bias in gather_in_order(own):
                rows = slice(4 * label, 4 * label + 4)
                regressor = self.model.head.output(BOX_REGRESSOR)
                regressor.weight[rows] = weight.to(self.device)
                regressor.bias[rows] = bias.to(self.device)
            self.model.is_fitted[1] = True
        if self.global_rank == 0:
            self.rows.remove()

    def solve(self, ids: Ids, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (4, D) and biases (4,) of one class; zeros move nothing."""
        if not len(ids):
            return torch.zeros(4, self.rows.dimensions), torch.zeros(4)
        blocks = [ids[start : start + BLOCK_ROWS] for start in range(0, len(ids), BLOCK_ROWS)]
        reads = [partial(self.rows.read, block) for block in blocks]
        return fit_ridge(reads, targets, self.options.ridge, self.scale)
