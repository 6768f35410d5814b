"""Crops of objects: what object scoring's network is fine-tuned on."""

from collections.abc import Sequence
from dataclasses import dataclass

import albumentations as A
import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from detection.boxes import box_iou
from detection.data.classification import ClassificationSplit
from detection.data.examples import Labelled, LabelledCrops, Transform, learn_from
from detection.data.samples import as_image
from detection.disk.images import ImageCache
from detection.errors import UserError

BACKGROUND = -1  # label of a crop that shows no object; a model knows which of its outputs that is
CACHE_BYTES = 2**28  # of decoded images in each loader process, for those with several objects
TRIES = 20  # boxes drawn until one is background
LEAST, MOST = 0.1, 0.6  # of an image's sides: range of a background box's


@dataclass(frozen=True)
class BoxExamples:
    """A crop of every object's box, stretched to the network's input; perhaps background too.

    Attributes:
        transforms: of albumentations, of the crops.
        jitter: each edge is moved at random by at most so much of the box's sides.
        background: for each crop of an object so many of background (`BACKGROUND`): boxes at random
            of which the overlap with every object is small. The model has an output for them
            (`model.background=true`).
        background_max_iou: largest overlap of these.
    """

    transforms: Sequence[Transform] = ()
    jitter: float = 0.0
    background: float = 0.0
    background_max_iou: float = 0.3

    @property
    def has_background(self) -> bool:
        """Whether some crops show no object."""
        return self.background > 0

    def __post_init__(self) -> None:
        if min(self.jitter, self.background) < 0:
            raise UserError(
                f"examples: jitter={self.jitter}, background={self.background}: not below 0"
            )

    def of(self, split: ClassificationSplit, side_px: int, input_px: int) -> "BoxCrops":
        """See `Examples.of`.

        Raises:
            UserError: no image has a box.
        """
        learn_from(split, self.transforms)
        return BoxCrops(split, input_px, self)


class BoxCrops(LabelledCrops):
    """Crops of boxes by their number and a seed; after the objects come those of background.

    Args:
        split: images with boxes of their label.
        input_px: side of the crops.
        options: how.

    Raises:
        UserError: no image has a box.
    """

    def __init__(self, split: ClassificationSplit, input_px: int, options: BoxExamples) -> None:
        self.split, self.input_px, self.options = split, input_px, options
        counts = split.box_counts()
        self.rows = np.repeat(np.arange(len(counts)), counts)  # (N,) of each box
        firsts = np.concatenate([[0], np.cumsum(counts)])
        self.of_image = np.arange(len(self.rows)) - firsts[self.rows]  # (N,) which of its image's
        if len(self.rows) == 0:
            raise UserError("no training image has a box: there is no object to crop")
        self.num_background = round(options.background * len(self.rows))
        self.transform = A.Compose(list(options.transforms))
        self.images = ImageCache(CACHE_BYTES)

    def __len__(self) -> int:
        return len(self.rows) + self.num_background

    def __getitem__(self, number_and_seed: tuple[int, int]) -> Labelled:
        number, seed = number_and_seed
        generator = np.random.default_rng(seed)
        is_object = number < len(self.rows)
        # background is spread evenly over the objects' images
        place = number if is_object else int((number - len(self.rows)) / self.options.background)
        row = int(self.rows[place])
        target, pixels = self.split.target(row), self.images[self.split.path(row)]
        if is_object:
            box = self.jittered(target["boxes"][self.of_image[place]].numpy(), generator)
            label = target["label"]
        else:
            box = self.background_box(target["boxes"], pixels.shape[:2], generator)
            label = torch.tensor(BACKGROUND)
        crop = stretched(pixels, box, self.input_px)
        self.transform.set_random_seed(seed)
        return as_image(self.transform(image=crop)["image"][None]), label[None]

    def jittered(
        self, box: NDArray[np.float32], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """A box (4,) with its edges moved."""
        sides = np.tile(box[2:] - box[:2], 2)
        return box + sides * generator.uniform(-1, 1, 4) * self.options.jitter

    def background_box(
        self, boxes: torch.Tensor, size: tuple[int, ...], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """A box (4,) away from objects: of some the one that overlaps them least, or a free one."""
        best, least = np.zeros(4), 2.0
        for _ in range(TRIES):
            sides = np.array([size[1], size[0]]) * generator.uniform(LEAST, MOST, 2)
            corner = generator.uniform(0, np.array([size[1], size[0]]) - sides)
            box = np.concatenate([corner, corner + sides])
            overlap = float(box_iou(torch.from_numpy(box)[None].float(), boxes).max())
            if overlap < least:
                best, least = box, overlap
            if overlap <= self.options.background_max_iou:
                break
        return best


def stretched(
    pixels: NDArray[np.uint8], box: NDArray[np.float64], side_px: int
) -> NDArray[np.uint8]:
    """The pixels of a box, in whole pixels of the image and inside it, as a square (S, S, 3)."""
    height, width = pixels.shape[:2]
    x1, y1 = (
        int(np.clip(np.floor(v), 0, s - 1)) for v, s in zip(box[:2], (width, height), strict=True)
    )
    x2 = int(np.clip(np.ceil(box[2]), x1 + 1, width))
    y2 = int(np.clip(np.ceil(box[3]), y1 + 1, height))
    cut = pixels[y1:y2, x1:x2]
    smaller = 2 * side_px <= min(cut.shape[:2])
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(cut, (side_px, side_px), interpolation=how), np.uint8)
