"""The stage that learns to move boxes onto objects (R-CNN, appendix C; SPP-net, section 4.1)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detection.boxes import best_overlaps, encode
from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.example_files import ExampleFiles, Examples
from detection.regions.gather import gather_in_order, my_share
from detection.regions.prepared import PreparedImage, PreparedImages
from detection.regions.ridge import fit_ridge
from detection.stage import DetectionStage

BLOCK_ROWS = 8192  # rows of features brought into memory at a time


class BoxRegressionStage(DetectionStage):
    """One ridge regression a class, from pooled features of windows near its truths.

    Args:
        detector: whose `box_regressor` is learnt.
        data: to learn from.
        seed: see `DetectionStage`.
        min_iou: windows with at least this overlap with a truth are examples of its class.
        ridge: lambda.
        target_norm: features are scaled so that their mean norm is this.
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
    ) -> None:
        super().__init__(detector, data, seed)
        self.automatic_optimization = False
        self.min_iou = min_iou
        self.ridge = ridge
        self.target_norm = target_norm
        self.examples: list[tuple[int, tuple[list[tuple[int, Examples]], Tensor]]] = []
        detector.requires_grad_(False)
        detector.box_regressor.requires_grad_(True)  # what is learnt, if not by its gradient

    def trainer_options(self) -> dict[str, Any]:
        """One pass."""
        return {"max_epochs": 1, "enable_checkpointing": False}

    def configure_optimizers(self) -> None:
        """None: the solution has a closed form."""

    def train_dataloader(self) -> DataLoader[int]:
        """Indices of this process's images."""
        share = list(my_share(len(self.data.datasets["train"])))
        return DataLoader(share, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Open the files of examples."""
        super().on_fit_start()
        self.detector.eval()
        self.images = PreparedImages(
            self.detector.features, self.data.datasets["train"], self.device, max_bytes=0
        )
        folder = Path(self.trainer.default_root_dir) / "examples"
        width = self.detector.box_regressor.in_features
        self.files = ExampleFiles(folder, self.global_rank, width)

    @torch.no_grad()
    def training_step(self, index: int, batch_index: int) -> None:
        """Collect the examples of one image."""
        self.detector.eval()
        for image in self.images.stream([(int(index), False)]):
            self.collect(image)
        count = sum(len(e.targets) for _, (found, _) in self.examples for _, e in found)
        self.log("box_regression/examples", float(count), prog_bar=True, batch_size=1)

    def collect(self, image: PreparedImage) -> None:
        """Features and targets of the windows of an image that are near a truth."""
        truths, labels, _ = self.images.dataset.truths[image.index]
        boxes = torch.cat([truths, self.images.dataset.proposals(image.index)])
        overlap, match = best_overlaps(boxes, truths)
        near = overlap >= self.min_iou
        boxes, match = boxes[near], match[near]
        if len(boxes) == 0:
            return
        features = self.images.pool(image, boxes)
        targets = encode(boxes, truths[match])
        found = []
        for label in labels[match].unique().tolist():
            mine = labels[match] == label
            found.append((label, self.files.append(label, features[mine], targets[mine])))
        self.examples.append((image.index, (found, features.norm(dim=1).float().cpu())))

    def on_train_epoch_end(self) -> None:
        """Solve for every class, shared among the processes."""
        every = gather_in_order(self.examples)
        if every:
            norm = float(torch.cat([norms for _, norms in every]).mean())
            scale = self.target_norm / max(norm, 1e-12)
            own = [
                (
                    label,
                    (label, *self.solve([e for f, _ in every for c, e in f if c == label], scale)),
                )
                for label in my_share(self.detector.num_classes)
            ]
            for label, weight, bias in gather_in_order(own):
                rows = slice(4 * label, 4 * label + 4)
                with torch.no_grad():
                    self.detector.box_regressor.weight[rows] = weight.to(self.device)
                    self.detector.box_regressor.bias[rows] = bias.to(self.device)
            self.detector.learnt[1] = True
        if self.trainer.is_global_zero:
            self.files.remove()

    def solve(self, examples: list[Examples], scale: float) -> tuple[Tensor, Tensor]:
        """Weights (4, D) and biases (4,) of one class; zeros move nothing."""
        if not examples:
            return torch.zeros(4, self.files.dimensions), torch.zeros(4)
        blocks, block, rows = [], list[Tensor](), 0
        for one in examples:
            block.append(self.files.read(one))
            rows += len(block[-1])
            if rows >= BLOCK_ROWS:
                blocks.append(torch.cat(block))
                block, rows = [], 0
        if block:
            blocks.append(torch.cat(block))
        targets = torch.cat([one.targets for one in examples])
        return fit_ridge(blocks, targets, self.ridge, scale)
