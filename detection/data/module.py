"""The LightningDataModule of every data set: images, targets, splits, class names."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from detection.data.detection import SplitRequest
from detection.data.samples import AsStored, Sample, Split, Transform, as_list
from detection.data.sources import existing_folder
from detection.errors import UserError
from detection.runtime.distributed import rank, world_size

Task = Literal["detection", "classification", "localization", "segmentation"]
SPLITS_OF = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("test",),
    None: ("train", "val", "test"),
}
NO_LISTS = {"train": None, "val": None, "test": None}


class Annotations(Protocol):
    """From a folder to the splits of a task."""

    def read(
        self, folder: Any, request: SplitRequest, splits: Sequence[str]
    ) -> tuple[list[str], dict[str, Any]]:
        """Names of the classes, and the splits that are asked for, as far as there are any."""
        ...


class DataModule(pl.LightningDataModule):
    """A data set. Its loaders give lists of `Sample`, each process its own images.

    It works with a bare `Trainer`: `trainer.fit(module, datamodule=data)`. A model's
    `prepare(data)` fetches what the model needs of it beforehand, such as proposals, and sets its
    `transform`.

    Args:
        name: what a person calls the data; part of the names of its caches.
        task: which targets its samples have, see `Target`.
        layout: reads a folder; called with it.
        annotations: makes splits of what the layout finds.
        source: makes sure that the data is on disk, and returns its folder; called with `root`.
        root: the user's own folder, or None for the source's.
        splits: name of the list for each of "train", "val" and "test"; None finds one.
        fractions: shares of a stratified split where the folder has no lists.
        split_seed: of that split.
        val_images: see `SplitRequest`.
        limit: see `SplitRequest`.
        num_workers: processes that decode images, for each process that trains.
        threads: that look for proposals.
        cache: folder of indices, proposals and features.

    Attributes:
        splits: those that are read, by name.
        class_names: in the order of the labels.
        transform: of the samples that val, test and predict loaders give.
    """

    def __init__(
        self,
        *,
        name: str,
        task: Task,
        layout: Callable[[Path], Any],
        annotations: Annotations,
        source: Callable[[str | None], Path] = existing_folder,
        root: str | None = None,
        splits: Mapping[str, str | None] = NO_LISTS,
        fractions: dict[str, float] | None = None,
        split_seed: int = 0,
        val_images: int = 200,
        limit: int | None = None,
        num_workers: int = 0,
        threads: int = 2,
        cache: str | Path = "data/cache",
    ) -> None:
        super().__init__()
        self.name: str = name
        self.task: Task = task
        self.cache = Path(cache)
        self.num_workers = num_workers
        self.threads = threads
        self._find = lambda: layout(source(root))
        self._annotations = annotations
        for option, value, least in (
            ("limit", limit, 1), ("val_images", val_images, 0), ("threads", threads, 1),
            ("num_workers", num_workers, 0),
        ):  # fmt: skip
            if value is not None and value < least:
                raise UserError(f"data.{option}={value}: it is a number from {least}")
        shares = fractions or {"train": 0.7, "val": 0.1, "test": 0.2}
        self._request = SplitRequest(
            name, splits, shares, split_seed, val_images, limit, self.cache
        )
        self._folder: Any = None
        self.splits: dict[str, Any] = {}
        self.class_names: list[str] = []
        self.transform: Transform = AsStored()

    def setup(self, stage: str | None = None) -> None:
        """Read the splits that a stage needs and that are not read yet.

        Args:
            stage: "fit", "validate", "test" or "predict"; None: all splits.

        Raises:
            UserError: whatever is wrong with folders, lists and annotations.
        """
        missing = [split for split in SPLITS_OF[stage] if split not in self.splits]
        if not missing:
            return
        if self._folder is None:
            self._folder = self._find()
        self.class_names, made = self._annotations.read(self._folder, self._request, missing)
        self.splits |= made

    @property
    def num_classes(self) -> int:
        """Number of classes, without background."""
        return len(self.class_names)

    @property
    def has_val(self) -> bool:
        """Whether there are images to validate on."""
        return "val" in self.splits and len(self.splits["val"]) > 0

    @property
    def figures(self) -> dict[str, float]:
        """What the folder tells of itself, by full names, such as `data/imbalance_median`."""
        return getattr(self._folder, "figures", {})

    def split(self, name: str) -> Any:
        """A split that is read.

        Raises:
            UserError: the data has none of this name, or it is not read yet.
        """
        if name not in self.splits:
            raise UserError(f"data={self.name} has no {name} images (data.splits, data.val_images)")
        return self.splits[name]

    def loader(
        self,
        split: str,
        transform: Transform | None = None,
        batch_size: int | None = None,
        share: bool = True,
    ) -> DataLoader[list[Sample]]:
        """The images of a split, in order, as lists of samples.

        Args:
            split: "train", "val" or "test".
            transform: of each sample, in the workers; None: the module's own.
            batch_size: images in a list; None: the transform's.
            share: each process takes its own images; False: all take all.
        """
        images, transform = self.split(split), transform or self.transform
        who = (rank(), world_size()) if share else (0, 1)
        return DataLoader(
            Transformed(images, transform),
            batch_size=batch_size or transform.batch_size,
            sampler=ShardSampler(len(images), *who),
            num_workers=self.num_workers,
            collate_fn=as_list,
        )

    def train_dataloader(self) -> DataLoader[list[Sample]]:
        """Training images as they are stored, in a new order each epoch: for modules of one's own.

        The stages of this package draw crops, windows or views instead.
        """
        return DataLoader(
            Transformed(self.split("train"), AsStored()),
            shuffle=True,
            num_workers=self.num_workers,
            collate_fn=as_list,
        )

    def val_dataloader(self) -> DataLoader[list[Sample]] | list[Any]:
        """Every validation image once; nothing where there are none."""
        return self.loader("val") if self.has_val else []

    def test_dataloader(self) -> DataLoader[list[Sample]]:
        """Every test image once, over all processes."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[list[Sample]]:
        """The test images, as `test_dataloader`."""
        return self.loader("test")


class Transformed(Dataset[Any]):
    """The samples of a split, each transformed."""

    def __init__(self, split: Split, transform: Transform) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample:
        return self.transform(self.split.sample(index, self.transform.decode_px))


class ShardSampler(DistributedSampler[Any]):
    """Every image once over all processes, in order: rank, rank + world, ...

    A process for which none is left takes the last image too, for Lightning waits for all: who
    measures must tell images apart by their number.

    Lightning leaves an instance of `DistributedSampler` alone where it would otherwise add its
    own, which repeats images until the processes hold equally many.

    Args:
        length: images in the data set.
        rank: this process, from 0.
        world_size: processes.
    """

    def __init__(self, length: int, rank: int, world_size: int) -> None:
        self.indices = range(rank, length, world_size) or range(length - 1, length)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)

    def set_epoch(self, epoch: int) -> None:
        """The order is the same in every epoch."""
