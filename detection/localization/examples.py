"""Test images that a localiser's report shows, on its device."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from detection.data.module import DataModule
from detection.data.samples import Sample, Transform
from detection.disk.images import read_image
from detection.report.drawing import fitted


def shown_examples(
    data: DataModule, transform: Transform, device: torch.device, most: int, longer_px: int
) -> Iterator[tuple[Sample, NDArray[np.uint8]]]:
    """Some test images, evenly spread: what a model sees of each, and its pixels to draw on.

    Args:
        data: with test images.
        transform: of the model.
        device: of the model.
        most: images.
        longer_px: longer side of the pixels.
    """
    split = data.split("test")
    for index in np.linspace(0, len(split) - 1, min(len(split), most)).astype(int).tolist():
        sample = transform(split.sample(index, transform.decode_px))
        sample.views = [[view.to(device) for view in kind] for kind in sample.views]
        sample.image = sample.image.to(device)
        yield sample, fitted(read_image(split.path(index)), longer_px)
