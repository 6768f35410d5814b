"""Crops of images with windows in them: what a network without weights learns from."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.data.detection import DetectionSplit
from detection.disk.images import ImageCache
from detection.errors import UserError
from detection.matching import BACKGROUND, IGNORED, OBJECT, Matcher

Augmentation: TypeAlias = Any  # an albumentations.Compose
Boxes = NDArray[np.float32]

# objects as in fine-tuning; half of the background windows hold a part of an object
MATCHER = Matcher(foreground_min_iou=0.5, background_min_iou=0.1, background_max_iou=0.5)
INSIDE = 0.75  # a window counts if so much of it lies in the crop
FILL = 0.9  # the chosen object's longer side fills no more of the crop
ZOOM = (0.7, 1.4)  # range of scales about the detector's own


@dataclass(frozen=True)
class Crop:
    """A square crop and windows in it.

    Attributes:
        pixels: (S, S, 3) uint8 RGB.
        boxes: (W, 4) float32 xyxy in the crop's pixels.
        labels: (W,) int64 in [0, C], C for background.
        image_id: where it is from.
    """

    pixels: NDArray[np.uint8]
    boxes: Boxes
    labels: NDArray[np.int64]
    image_id: str


class ObjectCrops:
    """Crops about a data set's objects, each class as often as any other.

    Args:
        dataset: with proposals, which are the windows beside the ground truth.
        num_classes: C; background is label C.
        windows: W, in each crop.
        scale_px: shorter side at which the detector looks at images.
        augmentation: of crops with their boxes; None for none.
    """

    def __init__(
        self,
        dataset: DetectionSplit,
        num_classes: int,
        windows: int,
        scale_px: int,
        augmentation: Augmentation | None,
    ) -> None:
        self.dataset = dataset
        self.background = num_classes
        self.windows = windows
        self.scale_px = scale_px
        self.augmentation = augmentation
        places: dict[int, list[tuple[int, int]]] = {}
        self.images = ImageCache()  # an image is cropped many times
        for image in range(len(dataset)):
            for row, label in enumerate(dataset.gt(image).labels.tolist()):
                places.setdefault(label, []).append((image, row))
        if not places:
            raise UserError("no object to crop in the images")
        self.of_class = [places[label] for label in sorted(places)]

    def draw(self, size_px: int, generator: np.random.Generator) -> Crop:
        """One random crop about a random object of a random class."""
        places = self.of_class[int(generator.integers(len(self.of_class)))]
        image, row = places[int(generator.integers(len(places)))]
        boxes = self.dataset.gt(image).boxes
        pixels = self.images[self.dataset.paths[image]]
        matrix = self.place(boxes[row].numpy(), pixels.shape[:2], size_px, generator)
        crop = warp(pixels, matrix, size_px)
        windows, labels = self.choose(image, matrix, size_px, generator)
        if self.augmentation is not None:
            # albumentations draws from generators of its own
            self.augmentation.set_random_seed(int(generator.integers(2**31)))
            made = self.augmentation(image=crop, bboxes=windows, labels=labels)
            crop, windows = made["image"], np.asarray(made["bboxes"], np.float32).reshape(-1, 4)
            labels = np.asarray(made["labels"], np.int64)
        return Crop(crop, windows, labels, self.dataset.image_ids[image])

    def place(
        self, box: Boxes, size: tuple[int, ...], size_px: int, generator: np.random.Generator
    ) -> NDArray[np.float64]:
        """The (2, 3) map from image to crop: a scale near the detector's, the box inside."""
        scale = self.scale_px / min(size) * generator.uniform(*ZOOM)
        scale = min(scale, FILL * size_px / float(max(box[2:] - box[:2])))
        low, high = box[2:] * scale - size_px, box[:2] * scale  # of the crop's corner
        corner = generator.uniform(np.minimum(low, high), np.maximum(low, high))
        return np.array([[scale, 0, -corner[0]], [0, scale, -corner[1]]])

    def choose(
        self, image: int, matrix: NDArray[np.float64], size_px: int, generator: np.random.Generator
    ) -> tuple[Boxes, NDArray[np.int64]]:
        """Up to W windows in a crop, half of them objects, and their labels."""
        gt, regions = self.dataset.gt(image), self.dataset.regions(image)
        matches = MATCHER(regions, gt.boxes)
        kind, match = matches.kind.numpy(), matches.gt.numpy()
        moved = regions.numpy() * matrix[0, 0] + np.tile(matrix[:, 2], 2)
        boxes = np.clip(moved, 0, size_px).astype(np.float32)
        share = area(boxes) / np.maximum(area(moved), 1e-6)
        usable = (share >= INSIDE) & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 1)
        groups = [
            usable & (kind == OBJECT),
            usable & (kind == BACKGROUND),  # parts of objects
            usable & (kind == IGNORED),  # what overlaps less
        ]
        counts = (self.windows // 2, self.windows // 4, self.windows // 4)
        rows = np.concatenate(
            [some(np.flatnonzero(g), n, generator) for g, n in zip(groups, counts, strict=True)]
        )
        labels = np.full(len(rows), self.background, np.int64)
        is_object = kind[rows] == OBJECT
        labels[is_object] = gt.labels.numpy()[match[rows[is_object]]]
        return boxes[rows], labels


def some(rows: NDArray[np.int64], count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """At most `count` of some rows, at random."""
    return rows[generator.permutation(len(rows))[:count]]


def area(boxes: NDArray[Any]) -> NDArray[Any]:
    """Areas (R,) of boxes (R, 4)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def warp(image: NDArray[np.uint8], matrix: NDArray[np.float64], size_px: int) -> NDArray[np.uint8]:
    """A square of an image; what lies outside repeats the border."""
    warped: Any = cv2.warpAffine(
        image, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.uint8)
