"""The network that scores squares: fine-tuned on objects, and its scores, kept on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

from detection.classification.training import ClassificationOptions, ClassificationStage
from detection.data.box_examples import BoxExamples
from detection.data.classification import ClassificationSplit
from detection.data.examples import Examples, Labelled
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.disk.arrays import RaggedArray, allocated, fingerprint
from detection.disk.checkpoints import weights_digest
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.images_stage import rows_with_boxes
from detection.object_scoring.localizer import ObjectScoring
from detection.runtime.distributed import rank, wait_for_all, world_size
from detection.training.schedules import OptimizerFactory
from detection.training.stage import Stage

# The network that scores


@dataclass(frozen=True, kw_only=True)
class FinetuneOptions(ClassificationOptions):
    """Fine-tuning on crops of objects; the poster gives no numbers. See `ClassificationOptions`.

    Attributes:
        examples: crops of boxes.
        epochs: ours.
        optimizer: R-CNN's rate of fine-tuning (2.3).
        auxiliary_weight: fine-tuning goes without.
    """

    examples: Examples = BoxExamples()
    epochs: int = 10
    auxiliary_weight: float = 0.0
    optimizer: OptimizerFactory = partial(SGD, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def stage(  # type: ignore[override]
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "FinetuneStage":
        """The stage that trains so."""
        model.start_scorer()
        return FinetuneStage(model.scorer, data, evaluator, seed, options=self)


class FinetuneStage(ClassificationStage):
    """Learns to tell objects, from crops of them alone; and background, as the last class."""

    name = "finetune"
    knows_background = True

    def check(self, split: ClassificationSplit) -> None:
        """See `ClassificationStage.check`.

        Raises:
            UserError: crops of background without an output for them.
        """
        super().check(split)
        has_output = self.model.num_classes > self.data.num_classes
        if has_output and not self.options.examples.has_background:
            raise UserError(
                "model.background=true has an output that no crop would teach: set "
                "model.stages.finetune.examples.background=1 too"
            )
        if self.options.examples.has_background and not has_output:
            raise UserError(
                "model.stages.finetune.examples.background needs an output for background: "
                "add model.background=true"
            )

    def training_step(self, batch: Labelled, batch_idx: int) -> Tensor:
        """Cross-entropy over the classes, and background if there is any."""
        images, labels = batch
        labels = torch.where(labels < 0, self.model.num_classes - 1, labels)
        return super().training_step((images, labels), batch_idx)


# Its scores, on disk


@dataclass(frozen=True)
class ScoreOptions:
    """The scores of the training images' squares are computed once, and kept on disk."""

    def stage(
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "ScoreStage":
        """The stage that computes them."""
        return ScoreStage(model, data, evaluator, seed)


class ScoreStage(Stage):
    """Scores the squares of each training image with boxes, for its true class.

    Each process scores its share; what was scored when a run was stopped is not scored again.

    Args:
        model: whose scoring network is trained.
        data: with boxes.
        evaluator: see `Stage`.
        seed: see `Stage`.

    Raises:
        UserError: no training image has a box, or the disk is full.
    """

    name = "score"
    model: ObjectScoring

    def __init__(
        self, model: ObjectScoring, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> None:
        super().__init__(model, data, evaluator, seed)
        self.automatic_optimization = False
        model.start_scorer()
        self.rows = rows_with_boxes(data)
        self.store = score_store(model, data, self.rows)
        self.missing = np.flatnonzero(self.store.done == 0)  # before any process writes

    def learns(self) -> Sequence[nn.Module]:
        """Nothing in fact: several processes want something that might."""
        return [self.model.regressor]

    def is_needed(self) -> bool:
        """Not where all scores are there."""
        return len(self.missing) > 0

    def trainer_options(self) -> dict[str, Any]:
        """One pass, which goes on where it was."""
        return {"max_epochs": 1, "limit_val_batches": 0, "enable_checkpointing": False}

    def configure_optimizers(self) -> None:
        """None: nothing is learnt."""

    def train_dataloader(self) -> DataLoader[list[Sample]]:
        """The images that are not scored yet, shared out; every process has as many batches."""
        size = self.model.views.batch_size * world_size()
        rounds = [self.missing[n : n + size] for n in range(0, len(self.missing), size)]
        mine = [some[rank() :: world_size()] for some in rounds]
        images = _ImagesToScore(self.model, self.data.split("train"), self.rows, mine)
        workers = self.data.num_workers
        return DataLoader(images, batch_size=None, shuffle=False, num_workers=workers)

    @torch.no_grad()
    def training_step(self, batch: list[Sample], batch_idx: int) -> None:
        """Score the squares of some images."""
        for sample in batch:
            scores = self.model.square_scores(sample)[:, int(sample.target["label"])].cpu().numpy()
            item = int(np.searchsorted(self.rows, sample.index))
            self.store.write(item, np.concatenate([scores, sample.size])[None])

    def on_train_end(self) -> None:
        """Nobody reads before all have written."""
        wait_for_all()


class _ImagesToScore(Dataset[list[Sample]]):
    """Batches of images as the model looks at them."""

    def __init__(
        self, model: ObjectScoring, split: ClassificationSplit, rows: NDArray[np.int64],
        batches: Sequence[NDArray[np.int64]],
    ) -> None:  # fmt: skip
        self.views, self.split, self.rows, self.batches = model.views, split, rows, batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> list[Sample]:
        rows = self.rows[self.batches[number]].tolist()
        return [self.views(self.split.sample(row, self.views.decode_px)) for row in rows]


def score_store(model: ObjectScoring, data: DataModule, rows: NDArray[np.int64]) -> RaggedArray:
    """(1, K + 2) of some training images, on disk: scores of the true class; height and width.

    They are found again by the network's weights, the squares and the images' files.
    """
    split = data.split("train")
    features = model.scorer.features
    backbone = features.backbone
    network = (type(features), features.sides, backbone.input_px, backbone.field, backbone.conv)
    about = {"settings": repr(model.views.settings()), "precision": model.precision,
             "network": fingerprint(network), "weights": weights_digest(model.scorer)}  # fmt: skip
    files = [split.path(int(row)) for row in rows]
    labels = fingerprint(split.labels()[rows].tolist())
    name = f"{data.name}-squares-{fingerprint(sorted(about.items()), labels, files=files)}"
    counts = np.ones(len(rows), np.int64)
    return allocated(data.cache / "scores" / name, about, counts, len(model.grid) + 2, "float32")
