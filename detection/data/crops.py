"""Square crops of objects and of background, to learn a classifier from a detection data set."""

from functools import lru_cache
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.boxes import best_overlaps
from detection.data.samples import DetectionDataset
from detection.errors import UserError
from detection.images import read_image

Augmentation: TypeAlias = Any  # an albumentations.Compose
Crop = tuple[NDArray[np.uint8], int, str]  # (S, S, 3) RGB, label, image id

BACKGROUND_MAX_IOU = 0.5  # crops that overlap an object less are background, as in fine-tuning
PARTIAL_MIN_IOU = 0.1  # half of them hold a part of an object, at least so much
SHIFT = 0.1  # an object's crop moves and grows by at most this share of its side
TRIES = 20  # to find a background crop among random squares

recent_image = lru_cache(maxsize=512)(read_image)  # an image is cropped many times


class ObjectCrops:
    """Crops of a data set's objects (each class as often as any other) and of its background.

    Args:
        dataset: with proposals, among which background is sought.
        num_classes: C; background is label C.
        background_fraction: share of background crops.
        context: border around an object, as a share of its longer side.
        augmentation: applied to each crop; None for none, and no shifts either.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        num_classes: int,
        background_fraction: float,
        context: float,
        augmentation: Augmentation | None,
    ) -> None:
        self.dataset = dataset
        self.background = num_classes
        self.background_fraction = background_fraction
        self.context = context
        self.augmentation = augmentation
        places = [
            (int(label), image, row)
            for image, (_, labels, _) in enumerate(dataset.truths)
            for row, label in enumerate(labels)
        ]
        self.of_class = {
            label: [(image, row) for other, image, row in places if other == label]
            for label in sorted({label for label, _, _ in places})
        }
        if not self.of_class and background_fraction < 1:
            raise UserError("no object to crop in the training images")

    def draw(self, size_px: int, generator: np.random.Generator) -> Crop:
        """One random crop."""
        if not self.of_class or generator.random() < self.background_fraction:
            image, square = self.background_square(generator)
            label = self.background
        else:
            label = list(self.of_class)[int(generator.integers(len(self.of_class)))]
            places = self.of_class[label]
            image, row = places[int(generator.integers(len(places)))]
            box = self.dataset.truths[image][0][row].numpy()
            square = self.square_around(box, generator)
        pixels = cut(recent_image(self.dataset.paths[image]), square, size_px)
        if self.augmentation is not None:
            # albumentations draws from generators of its own
            self.augmentation.set_random_seed(int(generator.integers(2**31)))
            pixels = self.augmentation(image=pixels)["image"]
        return pixels, label, self.dataset.image_ids[image]

    def square_around(
        self, box: NDArray[np.float32], generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """Left, top and side of a square that holds a box and some context."""
        side = float(max(box[2:] - box[:2])) * (1 + 2 * self.context)
        centre = (box[:2] + box[2:]) / 2
        if self.augmentation is not None:
            centre = centre + generator.uniform(-SHIFT, SHIFT, 2) * side
            side *= generator.uniform(1 - SHIFT, 1 + SHIFT)
        return np.array([*(centre - side / 2), side])

    def background_square(self, generator: np.random.Generator) -> tuple[int, NDArray[np.float64]]:
        """An image and a square about one of its proposals that is on no object."""
        least = PARTIAL_MIN_IOU if generator.random() < 0.5 else 0.0
        for _ in range(TRIES):
            image = int(generator.integers(len(self.dataset)))
            proposals = self.dataset.proposals(image)
            box = proposals[int(generator.integers(len(proposals)))]
            overlap, _ = best_overlaps(box[None], self.dataset.truths[image][0])
            if least <= float(overlap) < BACKGROUND_MAX_IOU:
                return image, self.square_around(box.numpy(), generator)
        return image, np.array([0.0, 0.0, 8.0])  # a corner: images full of objects are rare


def cut(image: NDArray[np.uint8], square: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """A square of an image, resized; what lies outside repeats the border."""
    left, top, side = square
    scale = size_px / max(side, 1.0)
    matrix = np.array([[scale, 0, -left * scale], [0, scale, -top * scale]])
    warped: Any = cv2.warpAffine(
        image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)
