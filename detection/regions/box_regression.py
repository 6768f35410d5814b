"""The stage that learns to move boxes onto objects (R-CNN, appendix C; SPP-net, section 4.1)."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detection.boxes import best_overlaps, encode
from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.feature_cache import FeatureCache, find_features
from detection.regions.region_reader import ImageRegions, RegionReader
from detection.regions.ridge import fit_ridge
from detection.regions.row_files import Ids, RowFiles
from detection.runtime.distributed import gather_in_order, my_share
from detection.training.detection_stage import DetectionStage

BLOCK_ROWS = 8192  # rows of features brought into memory at a time

Found = tuple[Ids, Tensor, Tensor]  # of one image: (n,) ids of features, labels, (n, 4) targets


class BoxRegressionStage(DetectionStage):
    """One ridge regression a class, from pooled features of windows near its truths.

    Args:
        detector: whose `box_regressor` is learnt.
        data: to learn from.
        seed: see `DetectionStage`.
        min_iou: windows with at least this overlap with a truth are examples of its class.
        ridge: lambda.
        target_norm: features are scaled so that their mean norm is this.
        norm_images: images that this mean is taken over ...
        norm_boxes: ... and boxes in each.
        memory_gb: of maps kept from one pass for the next.
        cache: features of all regions on disk, if the SVMs left them there.
    """

    name = "box_regression"
    detector: RegionDetector

    def __init__(
        self,
        detector: RegionDetector,
        data: DetectionData,
        seed: int = 0,
        *,
        min_iou: float,
        ridge: float,
        target_norm: float,
        norm_images: int,
        norm_boxes: int,
        memory_gb: float,
        cache: FeatureCache | None,
    ) -> None:
        super().__init__(detector, data, seed)
        self.automatic_optimization = False
        self.min_iou = min_iou
        self.ridge = ridge
        self.target_norm = target_norm
        self.norm_sample = (norm_images, norm_boxes)
        self.max_bytes = int(memory_gb * 2**30)
        self.cache = cache
        self.examples: list[tuple[int, Found]] = []
        detector.requires_grad_(False)
        detector.box_regressor.requires_grad_(True)  # what is learnt, if not by its gradient

    def trainer_options(self) -> dict[str, Any]:
        """One pass."""
        return {"max_epochs": 1, "enable_checkpointing": False}

    def configure_optimizers(self) -> None:
        """None: the solution has a closed form."""

    def train_dataloader(self) -> DataLoader[list[int]]:
        """Rounds of images that have proposals; all processes have as many rounds."""
        images, size = self.data.datasets["train"].searched, self.trainer.world_size
        rounds = [images[i : i + size] for i in range(0, len(images), size)]
        return DataLoader(rounds, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Open the features and the files of examples, and measure the features' norm."""
        super().on_fit_start()
        detector, dataset = self.detector.eval(), self.data.datasets["train"]
        store = None
        if self.cache and self.cache.layer == "pool5":
            folder, name = self.data.cache / "features", f"{self.data.name}-train"
            store = find_features(self.cache, folder, name, detector, dataset)
        self.reader = RegionReader(detector, dataset, self.device, self.max_bytes, store)
        norm = self.reader.mean_norm("pool5", *self.norm_sample, self.seed)
        self.scale = self.target_norm / max(norm, 1e-12)
        folder = Path(self.trainer.default_root_dir) / "examples"
        self.rows = RowFiles(folder, self.global_rank, detector.width("pool5"))

    @torch.no_grad()
    def training_step(self, images: list[int], index: int) -> None:
        """Collect the examples of this process's images of a round; after the last one, learn."""
        self.detector.eval()
        for image in self.reader.stream([images[i] for i in my_share(len(images))]):
            self.collect(image)
        count = sum(len(ids) for _, (ids, _, _) in self.examples)
        self.log("box_regression/examples", float(count), prog_bar=True, batch_size=1)
        if index == self.trainer.num_training_batches - 1:
            self.learn()  # here, for Lightning validates before it ends the epoch

    def collect(self, image: ImageRegions) -> None:
        """Features and targets of the windows of an image that are near a truth."""
        overlap, match = best_overlaps(image.boxes, image.truths)
        near = (overlap >= self.min_iou).nonzero().flatten()
        if len(near) == 0:
            return
        features = self.reader.features(image, "pool5", near)
        targets = encode(image.boxes[near], image.truths[match[near]])
        labels = image.labels[match[near]]
        self.examples.append((image.index, (self.rows.append(features), labels, targets)))

    def learn(self) -> None:
        """Solve for every class, shared among the processes."""
        every = gather_in_order(self.examples)
        if every:
            ids = np.concatenate([found[0] for found in every])
            labels, targets = (torch.cat(parts) for parts in list(zip(*every, strict=True))[1:])
            own = []
            for label in my_share(self.detector.num_classes):
                mine = labels == label
                own.append((label, (label, *self.solve(ids[mine.numpy()], targets[mine]))))
            for label, weight, bias in gather_in_order(own):
                rows = slice(4 * label, 4 * label + 4)
                self.detector.box_regressor.weight[rows] = weight.to(self.device)
                self.detector.box_regressor.bias[rows] = bias.to(self.device)
            self.detector.learnt[1] = True
        if self.global_rank == 0:
            self.rows.remove()

    def solve(self, ids: Ids, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (4, D) and biases (4,) of one class; zeros move nothing."""
        if not len(ids):
            return torch.zeros(4, self.rows.dimensions), torch.zeros(4)
        blocks = [ids[start : start + BLOCK_ROWS] for start in range(0, len(ids), BLOCK_ROWS)]
        reads = [partial(self.rows.read, block) for block in blocks]
        return fit_ridge(reads, targets, self.ridge, self.scale)
