"""What a method computes once for an image, kept in memory as far as a limit allows."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from detection.boxes import flip
from detection.data.detection import DetectionSplit
from detection.data.samples import Sample
from detection.regions.detector import RegionFeatures


@dataclass
class PreparedImage:
    """An image's maps, or whatever its method prepares.

    Attributes:
        index: in the data set.
        flipped: whether all of it is mirrored left to right.
        content: what `RegionFeatures.prepare` gave.
        size: height and width in pixels.
    """

    index: int
    flipped: bool
    content: list[Tensor]
    size: tuple[int, int]


class PreparedImages:
    """Prepared images of a data set, computed once while its convolutions stay as they are.

    Args:
        features: of the method.
        dataset: the images.
        device: where to compute and keep.
        max_bytes: images beyond this are computed anew each time.
        precision: makes the context to compute in.
    """

    def __init__(
        self,
        features: RegionFeatures,
        dataset: DetectionSplit,
        device: torch.device,
        max_bytes: int,
        precision: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.features = features
        self.dataset = dataset
        self.device = device
        self.bytes_left = max_bytes
        self.precision = precision
        self.kept: dict[tuple[int, bool], PreparedImage] = {}

    def stream(self, wanted: Sequence[tuple[int, bool]]) -> Iterator[PreparedImage]:
        """The images of some (index, flipped), in order; a thread decodes one ahead."""
        with ThreadPoolExecutor(1) as reader:
            missing = [key for key in wanted if key not in self.kept]
            ahead = iter(missing)
            following = next(ahead, None)
            pending = reader.submit(self.read, following[0]) if following else None
            for key in wanted:
                if key in self.kept:
                    yield self.kept[key]
                    continue
                if pending is None or key != following:  # it was asked for twice
                    sample = self.read(key[0])
                else:
                    sample = pending.result()
                    following = next(ahead, None)
                    pending = reader.submit(self.read, following[0]) if following else None
                yield self.prepare(sample, key[1])

    def read(self, index: int) -> Sample:
        """An image from disk."""
        return self.dataset[index]

    @torch.no_grad()
    def prepare(self, sample: Sample, flipped: bool) -> PreparedImage:
        """Compute, and keep if there is room."""
        image = sample.image.to(self.device)
        with self.precision():
            content = self.features.prepare(image.flip(2) if flipped else image)
        prepared = PreparedImage(sample.index, flipped, content, sample.size)
        size = sum(t.numel() * t.element_size() for t in content)
        if size <= self.bytes_left:
            self.bytes_left -= size
            self.kept[sample.index, flipped] = prepared
        return prepared

    @torch.no_grad()
    def pool(self, prepared: PreparedImage, boxes: Tensor) -> Tensor:
        """Features (R, D) of windows given in the unflipped image."""
        if prepared.flipped:
            boxes = flip(boxes, prepared.size[1])
        with self.precision():
            return self.features.pool(prepared.content, boxes.to(self.device), prepared.size)
