"""Features of all regions of a data set on disk: computed once, memory-mapped, resumable."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.backbones.head import LAYERS, Layer
from detection.data.detection import DetectionSplit
from detection.disk.arrays import ABOUT, RaggedArray, allocated, fingerprint_of, opened
from detection.errors import UserError
from detection.regions.detector import RegionDetector
from detection.regions.prepared import PreparedImages
from detection.runtime.distributed import is_first_process, my_share, wait_for_all
from detection.runtime.progress import progress

FORMAT = 2  # of the files; part of their folder's name
REMEDY = (
    "set model.feature_cache.layer=fc7 or .dtype=float16, another folder with paths.cache=, or "
    "none with model.feature_cache=null (features are then computed several times)"
)


@dataclass(frozen=True)
class FeatureCache:
    """What to keep on disk.

    Attributes:
        layer: whose outputs; later layers are computed from them, earlier ones from the images.
        dtype: of the numbers.
    """

    layer: Layer = "pool5"
    dtype: Literal["float16", "float32"] = "float16"


class FeatureStore:
    """Features of ground truth and proposals of every image.

    Args:
        array: that holds them.
    """

    def __init__(self, array: RaggedArray) -> None:
        self.array = array
        self.layer: Layer = array.about["layer"]  # type: ignore[assignment]

    def gives(self, layer: Layer) -> bool:
        """Whether a layer's features can be computed from what is stored."""
        return LAYERS.index(layer) >= LAYERS.index(self.layer)

    def write(self, index: int, features: Tensor) -> None:
        """Keep the (R, D) features of an image."""
        self.array.write(index, features.cpu().to(torch.float32).numpy())

    def read(self, index: int, rows: Tensor) -> Tensor:
        """Some rows of an image's features."""
        return torch.from_numpy(self.array.some(index, rows.cpu().numpy()))


def identity(
    cache: FeatureCache, detector: RegionDetector, dataset: DetectionSplit
) -> dict[str, str]:
    """All that features depend on: layer, weights up to it, settings, and the regions."""
    weights = hashlib.sha256()
    parts = [detector.features, detector.head.fc6, detector.head.fc7]
    for part in parts[: 1 + LAYERS.index(cache.layer)]:
        for name, value in (part.state_dict() if part is not None else {}).items():
            weights.update(name.encode())
            weights.update(value.detach().cpu().contiguous().numpy().data)
    regions = hashlib.sha256()
    for index, image_id in enumerate(dataset.image_ids):
        regions.update(f"{image_id} {len(dataset.proposals(index))}".encode())
        regions.update(dataset.gt(index).boxes.contiguous().numpy().data)
    store = dataset.store.name if dataset.store else "no proposals"
    return {
        "format": str(FORMAT),
        "layer": cache.layer,
        "dtype": cache.dtype,
        "precision": detector.precision,
        "weights": weights.hexdigest()[:16],
        "settings": detector.regions.settings(),
        "regions": f"{store} {regions.hexdigest()[:16]}",
    }


def folder_of(folder: Path, name: str, about: dict[str, str]) -> Path:
    """Where some features lie: below the folder of all caches."""
    kept = f"{name}-{about['layer']}-{about['dtype']}-{fingerprint_of(about)}"
    return folder / "features" / kept


def find_features(
    cache: FeatureCache, folder: Path, name: str, detector: RegionDetector, dataset: DetectionSplit
) -> FeatureStore | None:
    """The features of a data set's regions if all of them are on disk; see `open_features`."""
    about = identity(cache, detector, dataset)
    place = folder_of(folder, name, about)
    if not (place / ABOUT).exists():
        return None
    array = opened(place, about)
    return FeatureStore(array) if array.is_complete else None


def region_counts(dataset: DetectionSplit) -> NDArray[np.int64]:
    """Ground truth and proposals of each image."""
    counts = [len(dataset.gt(i).boxes) + len(dataset.proposals(i)) for i in range(len(dataset))]
    return np.array(counts, np.int64)


@torch.no_grad()
def open_features(
    cache: FeatureCache,
    folder: Path,
    name: str,
    detector: RegionDetector,
    dataset: DetectionSplit,
    device: torch.device,
) -> FeatureStore:
    """The features of a data set's regions, computed first where they are not on disk yet.

    Processes of one run share the images; each image is marked when it is done, so that a run
    that was stopped goes on.

    Args:
        cache: what to keep.
        folder: of all caches.
        name: what a person calls the data.
        detector: in eval mode.
        dataset: with proposals.
        device: that computes.
    """
    about = identity(cache, detector, dataset)
    place = folder_of(folder, name, about)
    make = partial(
        allocated, place, about, region_counts(dataset), detector.head.width(cache.layer),
        cache.dtype, REMEDY,
    )  # fmt: skip
    if is_first_process():
        make()
    wait_for_all()
    store = FeatureStore(make())
    waiting = [i for i in my_share(len(dataset)) if not store.array.done[i]]
    precision = partial(detector.autocast, device)
    images = PreparedImages(detector.regions, dataset, device, 0, precision)
    if waiting:
        with progress(f"features {place.name}", len(waiting)) as advance:
            for image in images.stream([(i, False) for i in waiting]):
                pooled = images.pool(image, dataset.regions(image.index))
                with precision():
                    features = detector.head.layers(pooled, cache.layer)
                store.write(image.index, features)
                advance(1)
    wait_for_all()
    if not store.array.is_complete:
        raise UserError(
            f"{place} lacks features that another process computed: paths.cache= must be a folder "
            "that all machines share"
        )
    return store
