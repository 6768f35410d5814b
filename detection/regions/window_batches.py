"""Batches of windows from all over a data set, decoded ahead of the network."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from detection.data.detection import DetectionSplit
from detection.data.samples import as_image
from detection.disk.images import ImageCache
from detection.regions.sampling import Tables, Windows, draw

Batch = tuple[list[Tensor], list[Tensor], Tensor, Tensor, str]
"""uint8 (3, H, W) images, (R', 4) windows of each, (R,) labels, (R,) mirror, the images' ids."""


@dataclass(frozen=True)
class Drawing:
    """How batches are drawn.

    Attributes:
        batches: how many.
        per_batch: object and background windows in each.
        flip: mirror half of the windows.
        seed: of all of it.
        threads: that decode images.
    """

    batches: int
    per_batch: tuple[int, int]
    flip: bool
    seed: int
    threads: int


class WindowBatches(IterableDataset[Batch]):
    """Batches drawn uniformly over all windows of a data set (R-CNN, section 2.3).

    Threads decode the images of the next batches while the network works on this one; the
    windows are cut out on the network's device.

    Args:
        dataset: whose windows they are.
        images: of it, decoded.
        tables: its windows.
        drawing: how they are drawn.
    """

    def __init__(
        self, dataset: DetectionSplit, images: ImageCache, tables: Tables, drawing: Drawing
    ) -> None:
        self.dataset = dataset
        self.images = images
        self.tables = tables
        self.drawing = drawing

    def __len__(self) -> int:
        return self.drawing.batches

    def __iter__(self) -> Iterator[Batch]:
        drawing = self.drawing
        generator = np.random.default_rng(drawing.seed)
        windows = draw(*self.tables, drawing.batches, drawing.per_batch, generator)
        mirror = generator.random(len(windows)) < (0.5 if drawing.flip else 0.0)
        with ThreadPoolExecutor(drawing.threads) as pool:
            ahead: deque[Future[Batch]] = deque()
            for rows in np.split(np.arange(len(windows)), drawing.batches):
                ahead.append(pool.submit(self.load, windows.take(rows), mirror[rows]))
                if len(ahead) > drawing.threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def load(self, windows: Windows, mirror: NDArray[np.bool_]) -> Batch:
        """One batch, its windows ordered by image."""
        order = np.argsort(windows.image, kind="stable")
        windows, mirror = windows.take(order), mirror[order]
        indices, starts = np.unique(windows.image, return_index=True)
        boxes = np.split(windows.box, starts[1:])
        names, paths = self.dataset.image_ids, self.dataset.paths
        return (
            [as_image(self.images[paths[i]]) for i in indices],
            [torch.from_numpy(b) for b in boxes],
            torch.from_numpy(windows.label),
            torch.from_numpy(mirror),
            ", ".join(names[i] for i in indices[:8]),
        )
