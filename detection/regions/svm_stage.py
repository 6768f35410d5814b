"""The stage that learns one linear SVM a class."""

from typing import Any

import numpy as np
import torch
from joblib import Parallel, delayed
from torch import Tensor
from torch.utils.data import DataLoader

from detection.data.detection_data import DetectionData
from detection.regions.detector import RegionDetector
from detection.regions.gather import gather_in_order, my_share, to_cpu
from detection.regions.prepared import PreparedImage, PreparedImages
from detection.regions.svm import (
    ClassExamples,
    MiningRule,
    SVMOptions,
    hard_negatives,
    train_svm,
)
from detection.stage import DetectionStage

Found = tuple[int, list[tuple[int, Tensor]]]  # image, (class, features) of new examples


class SVMStage(DetectionStage):
    """Positives are the truths, negatives are mined in one pass over the images.

    Epoch 0 collects the positives, epoch 1 mines. Images come in rounds: within a round the SVMs
    stay, so that the result does not depend on the number of processes that share a round.

    Args:
        detector: whose `svm` is learnt.
        data: to learn from.
        seed: see `DetectionStage`.
        options: of one SVM.
        rule: of the mining.
        images_per_round: see above.
        target_norm: features are scaled so that their mean norm is this.
        norm_images: images that this mean is taken over ...
        norm_boxes: ... and boxes in each.
        memory_gb: of maps kept between the two epochs.
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
        target_norm: float,
        norm_images: int,
        norm_boxes: int,
        memory_gb: float,
    ) -> None:
        super().__init__(detector, data, seed)
        self.automatic_optimization = False
        self.options = options
        self.rule = rule
        self.images_per_round = images_per_round
        self.target_norm = target_norm
        self.norm_sample = (norm_images, norm_boxes)
        self.max_bytes = int(memory_gb * 2**30)
        self.examples = [ClassExamples() for _ in range(detector.num_classes)]
        self.scale = 1.0
        detector.requires_grad_(False)
        detector.svm.requires_grad_(True)  # what is learnt, if not by its gradient

    def is_needed(self) -> bool:
        """Not where the softmax scores."""
        return self.detector.scoring == "svm"

    def trainer_options(self) -> dict[str, Any]:
        """Two passes; validation after the second."""
        return {"max_epochs": 2, "check_val_every_n_epoch": 2, "enable_checkpointing": False}

    def configure_optimizers(self) -> None:
        """None: liblinear optimises."""

    def train_dataloader(self) -> DataLoader[list[int]]:
        """Rounds of image indices; the first round is the first image alone, as in the original."""
        rest = range(1, len(self.data.datasets["train"]))
        size = self.images_per_round
        rounds = [[0]] + [list(rest[i : i + size]) for i in range(0, len(rest), size)]
        return DataLoader(rounds, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def on_fit_start(self) -> None:
        """Measure the features' norm."""
        super().on_fit_start()
        self.detector.eval()
        self.images = PreparedImages(
            self.detector.features, self.data.datasets["train"], self.device, self.max_bytes
        )
        self.scale = self.target_norm / max(self.mean_norm(), 1e-12)

    @torch.no_grad()
    def mean_norm(self) -> float:
        """Mean norm of the features of random boxes in random images, the same in all processes."""
        generator = np.random.default_rng(self.seed)
        count = min(self.norm_sample[0], len(self.images.dataset))
        chosen = generator.permutation(len(self.images.dataset))[:count]
        norms = [torch.zeros(0)]
        for image in self.images.stream([(int(i), False) for i in chosen]):
            boxes = self.boxes(image)
            some = generator.permutation(len(boxes))[: self.norm_sample[1]]
            features = self.features(image, boxes[torch.from_numpy(some)])
            norms.append(features.norm(dim=1).cpu())
        return float(torch.cat(norms).mean())

    def boxes(self, image: PreparedImage) -> Tensor:
        """Truths, then proposals, of an image."""
        dataset = self.images.dataset
        return torch.cat([dataset.truths[image.index][0], dataset.proposals(image.index)])

    def features(self, image: PreparedImage, boxes: Tensor) -> Tensor:
        """What the SVMs read, before scaling."""
        pooled = self.images.pool(image, boxes)
        return self.detector.layers(pooled, self.detector.layer).float()

    @torch.no_grad()
    def training_step(self, images: list[int], index: int) -> None:
        """Look at this process's images of a round, and train the classes that have enough new."""
        self.detector.eval()
        mine = [images[i] for i in my_share(len(images))]
        look = self.positives if self.current_epoch == 0 else self.negatives
        own = [
            (i.index, (i.index, look(i))) for i in self.images.stream([(m, False) for m in mine])
        ]
        for _, found in gather_in_order(own):
            self.keep(found)
        if self.current_epoch == 1:
            last = index == self.trainer.num_training_batches - 1
            limit = 0 if last or index == 0 else self.rule.retrain_after
            self.train_classes([c for c, e in enumerate(self.examples) if e.new > limit or last])
            self.log(
                "svm/negatives",
                float(sum(self.count(e) for e in self.examples)),
                prog_bar=True,
                rank_zero_only=True,
                batch_size=1,
            )

    def positives(self, image: PreparedImage) -> list[tuple[int, Tensor]]:
        """Features of the truths of an image, by class."""
        truths, labels, _ = self.images.dataset.truths[image.index]
        if len(truths) == 0:
            return []
        features = to_cpu(self.features(image, truths) * self.scale)
        return [(int(c), features[labels == c]) for c in labels.unique()]

    def negatives(self, image: PreparedImage) -> list[tuple[int, Tensor]]:
        """Features of the hard negatives of an image, by class."""
        truths, labels, _ = (t.to(self.device) for t in self.images.dataset.truths[image.index])
        boxes = self.boxes(image).to(self.device)
        features = self.features(image, boxes) * self.scale
        start = image.index == 0  # no SVM is trained yet: all negatives are taken
        scores = features @ self.weight.t() + self.bias
        least = -torch.inf if start else self.rule.hard_min_score
        chosen = hard_negatives(scores, boxes, truths, labels, self.rule, least)
        return [(c, to_cpu(features[i])) for c, i in enumerate(chosen) if len(i)]

    def keep(self, found: list[tuple[int, Tensor]]) -> None:
        """Add an image's examples to those of their classes."""
        for label, features in found:
            if self.current_epoch == 0:
                self.examples[label].positives.append(features)
            else:
                self.examples[label].add_negatives(features)

    def train_classes(self, labels: list[int]) -> None:
        """Train some classes, shared among the processes, and drop negatives that became easy."""
        mine = [labels[i] for i in my_share(len(labels))]
        trained = Parallel(n_jobs=max(1, torch.get_num_threads()), prefer="threads")(
            delayed(self.train_class)(label) for label in mine
        )
        for label, weight, bias in gather_in_order(list(zip(mine, trained, strict=True))):
            self.weight[label] = weight.to(self.device)
            self.bias[label] = bias.to(self.device)
            self.examples[label].evict(weight, bias, self.rule.evict_below_score)
        self.detector.svm.weight.copy_(self.weight * self.scale)
        self.detector.svm.bias.copy_(self.bias)

    def train_class(self, label: int) -> tuple[int, Tensor, Tensor]:
        """One SVM on what is kept of its class."""
        nothing = torch.zeros(0, self.weight.shape[1])
        kept = self.examples[label]
        weight, bias = train_svm(
            torch.cat([nothing, *kept.positives]),
            torch.cat([nothing, *kept.negatives]),
            self.options,
            self.seed,
        )
        return label, weight, bias

    def on_train_epoch_start(self) -> None:
        """Begin each pass with fresh SVMs."""
        self.weight = torch.zeros_like(self.detector.svm.weight)
        self.bias = torch.zeros_like(self.detector.svm.bias)

    def on_train_epoch_end(self) -> None:
        """After the second pass the detector scores by its SVMs."""
        if self.current_epoch == 1:
            self.detector.learnt[0] = True

    @staticmethod
    def count(examples: ClassExamples) -> int:
        """Negatives kept."""
        return sum(len(block) for block in examples.negatives)
