"""Ground truth and proposals of training images with their features, wherever these come from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from detection.backbones.head import Layer
from detection.data.detection import DetectionSplit
from detection.regions.detector import RegionDetector
from detection.regions.feature_cache import FeatureStore
from detection.regions.prepared import PreparedImage, PreparedImages


@dataclass(frozen=True)
class ImageRegions:
    """The regions of one image.

    Attributes:
        index: of the image in the data set.
        boxes: (N + P, 4): ground truth, then proposals.
        gt_boxes: (N, 4).
        labels: (N,) of the ground truth.
        prepared: the image's maps; None where a store holds the features.
    """

    index: int
    boxes: Tensor
    gt_boxes: Tensor
    labels: Tensor
    prepared: PreparedImage | None


class RegionReader:
    """Reads images' regions, and their features at any layer, in the precision of inference.

    Args:
        detector: whose layers the features are.
        dataset: the images.
        device: where features go.
        max_bytes: of maps kept in memory.
        store: features on disk, or None: they are computed.
    """

    def __init__(
        self,
        detector: RegionDetector,
        dataset: DetectionSplit,
        device: torch.device,
        max_bytes: int = 0,
        store: FeatureStore | None = None,
    ) -> None:
        self.detector = detector
        self.dataset = dataset
        self.device = device
        self.store = store
        self.precision = partial(detector.autocast, device)
        self.images = PreparedImages(detector.regions, dataset, device, max_bytes, self.precision)

    def stream(self, indices: Sequence[int]) -> Iterator[ImageRegions]:
        """The regions of some images, in order."""
        if self.store is not None:
            for index in indices:
                yield self.regions(index, None)
            return
        for prepared in self.images.stream([(index, False) for index in indices]):
            yield self.regions(prepared.index, prepared)

    def regions(self, index: int, prepared: PreparedImage | None) -> ImageRegions:
        """The regions of one image."""
        gt = self.dataset.gt(index)
        return ImageRegions(index, self.dataset.regions(index), gt.boxes, gt.labels, prepared)

    @torch.no_grad()
    def features(self, image: ImageRegions, layer: Layer, rows: Tensor | None = None) -> Tensor:
        """(R, D) float32 features of an image's regions, or of some rows of them, at a layer."""
        rows = torch.arange(len(image.boxes)) if rows is None else rows
        if self.store is not None and self.store.gives(layer):
            stored = self.store.read(image.index, rows).to(self.device).float()
            with self.precision():
                return self.detector.head.layers(stored, layer, since=self.store.layer).float()
        prepared = image.prepared
        if prepared is None:
            prepared = next(self.images.stream([(image.index, False)]))
        pooled = self.images.pool(prepared, image.boxes[rows])
        with self.precision():
            return self.detector.head.layers(pooled, layer).float()

    def mean_norm(self, layer: Layer, images: int, boxes: int, seed: int) -> float:
        """Mean norm of features of some random boxes in each of some random images.

        The same in all processes (R-CNN: rcnn_feature_stats.m).
        """
        generator = np.random.default_rng(seed)
        chosen = generator.permutation(np.array(self.dataset.searched))[:images]
        norms = [torch.zeros(0)]
        for image in self.stream([int(i) for i in chosen]):
            some = generator.permutation(len(image.boxes))[:boxes]
            norms.append(self.features(image, layer, torch.from_numpy(some)).norm(dim=1).cpu())
        return float(torch.cat(norms).mean())
