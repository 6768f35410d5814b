"""Images by the scores of their squares, in the batches that regressors learn from."""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from detection.boxes import flip
from detection.data.module import DataModule
from detection.errors import UserError
from detection.localization.box_codes import Loss, box_losses, to_window
from detection.localization.images_stage import rows_with_boxes
from detection.object_scoring.localizer import ObjectScoring
from detection.object_scoring.scoring import score_store

Objects = Literal["largest", "nearest"]


class Scored(NamedTuple):
    """A batch of images by their scores.

    Attributes:
        scores: (N, K) of the true class.
        labels: (N,) which that is.
        boxes: (M, 4) its objects in the frame of the grid, which is 1 wide and high.
        image: (M,) whose they are.
    """

    scores: Tensor
    labels: Tensor
    boxes: Tensor
    image: Tensor

    def loss(self, said: Tensor, kind: Loss) -> Tensor:
        """The mean over the images of what is wrong with the nearest of their boxes.

        Args:
            said: (N, 4) edges in the frame.
            kind: see `box_losses`.
        """
        frame = said.new_tensor([[0.0, 0, 1, 1]]).expand(len(self.boxes), -1)
        each = box_losses(said[self.image], frame, self.boxes, "edges", kind)
        far = each.new_full((len(said),), torch.inf)
        return far.scatter_reduce(0, self.image, each, "amin").mean()


class ScoredImages:
    """Images with boxes by their scores on the squares, mirrored or not.

    Args:
        model: whose grid it is.
        data: with boxes.
        objects: of several in an image, which are learnt.
        flip: mirror half of them.

    Raises:
        UserError: scores are missing.
    """

    def __init__(
        self, model: ObjectScoring, data: DataModule, objects: Objects, flip: bool
    ) -> None:
        split, rows = data.split("train"), rows_with_boxes(data)
        store = score_store(model, data, rows)
        self.scores = store.rows
        if not store.is_complete:
            raise UserError(
                "the squares of the training images have no scores: model.stages.score is needed"
            )
        self.labels = split.labels()[rows]
        self.flip, self.mirrored = flip, model.grid.mirrored().numpy()
        each = []
        for row, size in zip(rows.tolist(), store.rows[:, -2:].astype(int).tolist(), strict=True):
            boxes = split.target(row)["boxes"]
            if objects == "largest":
                boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).prod(dim=1).argmax()][None]
            frame = model.grid.rectangle((size[0], size[1]))
            each.append(to_window(frame.expand(len(boxes), -1), boxes, "edges"))
        self.boxes = torch.cat(each)
        self.first = np.cumsum([0, *map(len, each)])  # of each image

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, items: NDArray[np.int64], seeds: NDArray[np.int64]) -> Scored:
        """Images (N,) by their numbers; an odd seed (N,) mirrors one, where half are mirrored."""
        is_mirrored = (seeds % 2 == 1) & self.flip
        scores = np.asarray(self.scores[items])[:, :-2]
        scores = np.where(is_mirrored[:, None], scores[:, self.mirrored], scores)
        counts = self.first[items + 1] - self.first[items]
        image = np.repeat(np.arange(len(items)), counts)
        within = np.arange(len(image)) - np.repeat(np.cumsum(counts) - counts, counts)
        boxes = self.boxes[torch.from_numpy(self.first[items][image] + within)]
        turned = torch.from_numpy(is_mirrored[image])[:, None]
        return Scored(
            torch.from_numpy(scores), torch.from_numpy(self.labels[items]),
            torch.where(turned, flip(boxes, width=1), boxes), torch.from_numpy(image),
        )  # fmt: skip


class RandomImages(IterableDataset[Scored]):
    """So many batches of as many images of each group, group after group, all by a seed."""

    def __init__(
        self, images: ScoredImages, groups: Sequence[NDArray[np.int64]], batch_size: int,
        steps: int, seed: int,
    ) -> None:  # fmt: skip
        self.images, self.groups = images, groups
        self.batch_size, self.steps, self.seed = batch_size, steps, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Scored]:
        generator = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            chosen = np.concatenate([generator.choice(of, self.batch_size) for of in self.groups])
            seeds = generator.integers(2**31, size=len(chosen))
            yield self.images.batch(chosen, seeds)
