"""Features of all regions of a data set on disk: computed once, memory-mapped, resumable."""

import hashlib
import logging
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.data.samples import DetectionDataset
from detection.disk.files import read_json, replacing, write_json
from detection.errors import UserError
from detection.regions.detector import LAYERS, Layer, RegionDetector
from detection.regions.prepared import PreparedImages
from detection.runtime.distributed import my_share, wait_for_all
from detection.runtime.progress import progress

log = logging.getLogger(__name__)

FORMAT = 1  # of the files; part of their folder's name


@dataclass(frozen=True)
class FeatureCache:
    """What to keep on disk.

    Attributes:
        layer: whose outputs; later layers are computed from them, earlier ones from the images.
        dtype: of the numbers.
    """

    layer: Layer
    dtype: Literal["float16", "float32"]


class FeatureStore:
    """Features of truths and proposals of every image.

    Args:
        folder: of this store.
        about: what its features are of (see `identity`).
        counts: regions of each image.
        dimensions: of a feature.

    Raises:
        UserError: the folder holds other features, or the disk has no room.
    """

    def __init__(
        self, folder: Path, about: dict[str, str], counts: NDArray[np.int64], dimensions: int
    ) -> None:
        self.folder = folder
        self.layer: Layer = about["layer"]  # type: ignore[assignment]
        self.offsets = np.concatenate([[0], np.cumsum(counts)])
        shape = (int(self.offsets[-1]), dimensions)
        dtype = np.dtype(about["dtype"])
        if not (folder / "store.json").exists():
            make_files(folder, about, shape, dtype, len(counts))
        found = read_json(folder / "store.json")
        if found != about:
            raise UserError(
                f"{folder} holds features of {found}, not of {about}: delete it, and they are "
                "computed again"
            )
        if (folder / "features.bin").stat().st_size != shape[0] * shape[1] * dtype.itemsize:
            raise UserError(f"{folder}/features.bin is damaged: delete {folder}")
        self.rows = np.memmap(folder / "features.bin", dtype, "r+", shape=shape)
        self.done = np.memmap(folder / "done.bin", np.uint8, "r+", shape=(len(counts),))

    def gives(self, layer: Layer) -> bool:
        """Whether a layer's features can be computed from what is stored."""
        return LAYERS.index(layer) >= LAYERS.index(self.layer)

    def write(self, index: int, features: Tensor) -> None:
        """Keep the (R, D) features of an image, and then that they are there."""
        start, stop = self.offsets[index : index + 2]
        self.rows[start:stop] = features.cpu().to(torch.float32).numpy()
        self.done[index] = 1

    def read(self, index: int, rows: Tensor) -> Tensor:
        """Some rows of an image's features."""
        return torch.from_numpy(self.rows[int(self.offsets[index]) + rows.cpu().numpy()])


def make_files(
    folder: Path, about: dict[str, str], shape: tuple[int, int], dtype: np.dtype[Any], images: int
) -> None:
    """Empty files of the right size (`store.json` last), if there is room for them."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = shape[0] * shape[1] * dtype.itemsize
    free = shutil.disk_usage(folder).free
    what = f"{about['layer']}, {shape[0]} regions of {images} images × {shape[1]} {dtype}"
    log.info(
        "feature cache: %s = %.2f GB (%.1f GB are free) in %s",
        what,
        wanted / 1e9,
        free / 1e9,
        folder,
    )
    if wanted > free:
        raise UserError(
            f"the feature cache needs {wanted / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "free: set model.feature_cache.layer=fc7 or .dtype=float16, another folder with "
            "paths.cache=, or none with model.feature_cache=null (features are then computed "
            "several times)"
        )
    for name, size in (("features.bin", wanted), ("done.bin", images)):
        with replacing(folder / name) as temporary, temporary.open("wb") as file:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is found here, not later
    write_json(folder / "store.json", about)


def identity(
    cache: FeatureCache, detector: RegionDetector, dataset: DetectionDataset
) -> dict[str, str]:
    """All that features depend on: layer, weights up to it, settings, and the regions."""
    weights = hashlib.sha256()
    parts = [detector.features, detector.fc6, detector.fc7][: 1 + LAYERS.index(cache.layer)]
    for part in parts:
        for name, value in part.state_dict().items():
            weights.update(name.encode())
            weights.update(value.detach().cpu().contiguous().numpy().data)
    regions = hashlib.sha256()
    for index, (truths, _, _) in enumerate(dataset.truths):
        regions.update(f"{dataset.image_ids[index]} {len(dataset.proposals(index))}".encode())
        regions.update(truths.numpy().data)
    store = dataset.store.name if dataset.store else "no proposals"
    return {
        "format": str(FORMAT),
        "layer": cache.layer,
        "dtype": cache.dtype,
        "precision": detector.precision,
        "weights": weights.hexdigest()[:16],
        "settings": detector.features.settings(),
        "regions": f"{store} {regions.hexdigest()[:16]}",
    }


def find_features(
    cache: FeatureCache,
    folder: Path,
    name: str,
    detector: RegionDetector,
    dataset: DetectionDataset,
) -> FeatureStore | None:
    """The features of a data set's regions if all of them are on disk; see `open_features`."""
    place, about = place_of(cache, folder, name, detector, dataset)
    if not (place / "store.json").exists():
        return None
    store = FeatureStore(place, about, region_counts(dataset), detector.width(cache.layer))
    return store if bool(store.done.all()) else None


def place_of(
    cache: FeatureCache,
    folder: Path,
    name: str,
    detector: RegionDetector,
    dataset: DetectionDataset,
) -> tuple[Path, dict[str, str]]:
    """The folder of some features, and what they are of."""
    about = identity(cache, detector, dataset)
    digest = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:12]
    return folder / f"{name}-{cache.layer}-{cache.dtype}-{digest}", about


def region_counts(dataset: DetectionDataset) -> NDArray[np.int64]:
    """Truths and proposals of each image."""
    truths = [len(t) for t, _, _ in dataset.truths]
    return np.array([n + len(dataset.proposals(i)) for i, n in enumerate(truths)], np.int64)


@torch.no_grad()
def open_features(
    cache: FeatureCache,
    folder: Path,
    name: str,
    detector: RegionDetector,
    dataset: DetectionDataset,
    device: torch.device,
) -> FeatureStore:
    """The features of a data set's regions, computed first where they are not on disk yet.

    Processes of one run share the images; each image is marked when it is done, so that a run
    that was stopped goes on.

    Args:
        cache: what to keep.
        folder: of all feature caches.
        name: what a person calls the data.
        detector: in eval mode.
        dataset: with proposals.
        device: that computes.
    """
    place, about = place_of(cache, folder, name, detector, dataset)
    counts = region_counts(dataset)
    width = detector.width(cache.layer)
    if len(my_share(1)):  # the first process
        FeatureStore(place, about, counts, width)
    wait_for_all()
    store = FeatureStore(place, about, counts, width)
    waiting = [i for i in my_share(len(dataset)) if not store.done[i]]
    precision = partial(detector.autocast, device)
    images = PreparedImages(detector.features, dataset, device, 0, precision)
    if waiting:
        with progress(f"features {place.name}", len(waiting)) as advance:
            for image in images.stream([(i, False) for i in waiting]):
                pooled = images.pool(image, dataset.regions(image.index))
                with precision():
                    features = detector.layers(pooled, cache.layer)
                store.write(image.index, features)
                advance(1)
    wait_for_all()
    if not store.done.all():
        raise UserError(
            f"{place} lacks features that another process computed: paths.cache= must be a folder "
            "that all machines share"
        )
    return store
