"""Random crops of images with the boxes that they show (ResNet, 3.4 and appendix C)."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.boxes import flip, inside
from detection.classification.views import with_shorter_side
from detection.data.classification import ClassificationSplit
from detection.data.samples import as_image
from detection.disk.images import image_size, read_reduced
from detection.localization.images_stage import ShuffledImages, TrainingImage

TRIES = 10  # crops that are drawn until one shows a box


@dataclass
class BoxCrop(TrainingImage):
    """A crop, and which boxes of its label it shows.

    Attributes:
        image: (3, S, S) uint8.
        boxes: (N, 4) of the label, clipped to the crop, that it shows for the most part; perhaps
            none.
        hidden: (M, 4) clipped boxes of which it shows less: neither objects nor background.
        label: of the image.
    """

    image: Tensor
    boxes: Tensor
    hidden: Tensor
    label: int

    def move(self, device: torch.device) -> None:
        """See `TrainingImage.move`."""
        self.image = self.image.to(device, non_blocking=True)


class BoxCrops(ShuffledImages):
    """Random square crops of a split's images, by their number and a seed; half are mirrored.

    The shorter side is scaled to a random length first (ResNet, 3.4). A box that leaves the crop is
    clipped, and counts if at least `min_share` of it is inside, or it covers so much of the crop. A
    crop without any such box is drawn again, some times.

    Args:
        split: images with boxes.
        rows: which of them.
        side_px: side of the crops.
        shorter_px: range of the shorter side.
        min_share: see above.
        flip: mirror half of them.
    """

    def __init__(
        self,
        split: ClassificationSplit,
        rows: NDArray[np.int64],
        side_px: int,
        shorter_px: tuple[int, int],
        min_share: float,
        flip: bool,
    ) -> None:
        super().__init__(split, rows)
        self.side_px, self.shorter_px = side_px, shorter_px
        self.min_share, self.flip = min_share, flip

    def __getitem__(self, number_and_seed: tuple[int, int]) -> BoxCrop:
        number, seed = number_and_seed
        index, side = int(self.rows[number]), self.side_px
        generator = np.random.default_rng(seed)
        shorter = int(generator.integers(self.shorter_px[0], self.shorter_px[1] + 1))
        path, target = self.split.path(index), self.split.target(index)
        pixels = with_shorter_side(read_reduced(path, shorter), shorter)
        width, height = image_size(path)
        scale = torch.tensor([pixels.shape[1] / width, pixels.shape[0] / height] * 2)
        scaled = target["boxes"] * scale
        for _ in range(TRIES):
            y, x = (int(generator.integers(0, s - side + 1)) for s in pixels.shape[:2])
            window = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
            share = inside(scaled, window)[:, 0]
            # or it fills the crop: larger objects would hardly ever be learnt
            share = torch.maximum(share, inside(window, scaled)[0])
            if (share >= self.min_share).any():
                break
        boxes = (scaled - window[:, :2].repeat(1, 2)).clamp(0, side)
        image = as_image(pixels[y : y + side, x : x + side])
        if self.flip and generator.random() < 0.5:
            image, boxes = image.flip(-1), flip(boxes, side)
        shown = share >= self.min_share
        hidden = boxes[~shown & (share > 0)]
        return BoxCrop(index, seed, image, boxes[shown], hidden, int(target["label"]))
