"""The LightningDataModule of every detection data set in VOC's layout."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from detection.data.samplers import ShardSampler, ranks
from detection.data.samples import BadBoxes, DetectionDataset, ImageFolder, Sample
from detection.errors import UserError
from detection.metrics import VOCMeanAveragePrecision
from detection.metrics.voc_ap import Interpolation
from detection.proposals.published import MatBoxes
from detection.proposals.recall import ProposalRecall, recall_report
from detection.proposals.selective_search import SelectiveSearch
from detection.proposals.store import open_store

log = logging.getLogger(__name__)


class DetectionData(pl.LightningDataModule):
    """Images, truths and proposals of the splits "train", "val" (may be missing) and "test".

    Args:
        name: what a person calls the data; part of the names of its caches.
        source: makes sure that the data is on disk, and gives its folder; called with `root`.
        layout: reads that folder; called with it.
        root: the user's own folder, or None for the source's.
        splits: list to take for "train", "val" and "test"; None finds one (see `split_ids`).
        fractions: shares of a stratified split where the folder has no lists.
        split_seed: of that split.
        classes: names in the order of their labels; None: found in the annotations.
        bad_boxes: "clip" or "refuse" (see `DetectionDataset`).
        train_on_difficult: keep difficult objects in training, as the original code did.
        val_images: at most so many images are looked at in validation.
        num_workers: processes that decode images, for each process that trains.
        processes: processes that compute proposals.
        cache: folder of the proposals.
        mat_boxes: for each split a `.mat` file of the original authors' proposals, or None.
        interpolation: of the headline AP: "11point" (VOC 2007) or "area".
        metric: makes the metric from the number of classes.
    """

    def __init__(
        self,
        *,
        name: str,
        source: Callable[[str | None], Path],
        layout: Callable[[Path], ImageFolder],
        root: str | None,
        splits: dict[str, str | None],
        fractions: dict[str, float],
        split_seed: int,
        classes: Sequence[str] | None,
        bad_boxes: BadBoxes,
        train_on_difficult: bool,
        val_images: int,
        num_workers: int,
        processes: int,
        cache: str,
        mat_boxes: dict[str, str | None],
        interpolation: Interpolation,
        metric: Callable[[int], VOCMeanAveragePrecision],
    ) -> None:
        super().__init__()
        self.name = name
        self.source = source
        self.layout = layout
        self.root = root
        self.split_options = (splits, fractions, split_seed)
        self.classes = classes
        self.bad_boxes: BadBoxes = bad_boxes
        self.train_on_difficult = train_on_difficult
        self.val_images = val_images
        self.num_workers = num_workers
        self.processes = processes
        self.cache = Path(cache)
        self.mat_boxes = mat_boxes
        self.interpolation: Interpolation = interpolation
        self.metric = metric
        self.class_names: list[str] = []
        self.datasets: dict[str, DetectionDataset] = {}
        self.recall: dict[str, float] = {}

    def read(self, splits: Sequence[str] = ("train", "val", "test")) -> None:
        """Fetch the data if need be, and read and check its annotations.

        Raises:
            UserError: whatever is wrong with folders, lists and annotations.
        """
        self.folder = folder = self.layout(self.source(self.root))
        ids = folder.split_ids(*self.split_options)
        every_id = sorted({i for split in ids.values() for i in split})
        self.class_names = list(self.classes or folder.classes(every_id))
        if "val" in ids:
            ids["val"] = ids["val"][: self.val_images]
        for split in splits:
            if split not in ids:
                continue
            keep = self.train_on_difficult or split != "train"
            dataset = DetectionDataset(folder, ids[split], self.class_names, self.bad_boxes, keep)
            public = folder.is_annotated(self.split_options[0].get(split) or split)
            if dataset.num_objects == 0 and (split == "train" or (split == "test" and public)):
                raise UserError(
                    f"no image of the {split} split of {folder.root} holds an object: choose "
                    f"other lists with data.splits.{split}="
                )
            self.datasets[split] = dataset
            log.info(
                "%s %s: %d images, %d objects, %d classes",
                self.name,
                split,
                len(dataset),
                dataset.num_objects,
                len(self.class_names),
            )

    def find_proposals(self, search: SelectiveSearch) -> None:
        """Give every split its proposals, computed where they are not on disk; report recall."""
        for split, dataset in self.datasets.items():
            name = f"{self.name}-{split}"
            given = self.mat_boxes.get(split)
            if given:
                ids = [dataset.image_ids[i].rpartition("/")[2] for i in dataset.searched]
                dataset.store = MatBoxes(Path(given).expanduser(), ids)
            else:
                paths = [dataset.paths[index] for index in dataset.searched]
                dataset.store = open_store(self.cache, name, paths, search, self.processes)
            recall = ProposalRecall.of(dataset)
            log.info("%s", recall_report(name, recall))
            if split == "test":
                self.recall = recall.figures()

    def training_images(self, name: str | None) -> list[int]:
        """Places in train of the images on one of the data's lists; of all for None.

        Raises:
            UserError: the list names images that train does not have.
        """
        ids = self.datasets["train"].image_ids
        if name is None:
            return list(range(len(ids)))
        place = {image_id: index for index, image_id in enumerate(ids)}
        wanted = self.folder.ids(name)
        missing = [image_id for image_id in wanted if image_id not in place]
        if missing:
            raise UserError(
                f"{len(missing)} images of {name} are not in data.splits.train, such as "
                f"{missing[0]}: a stage's split= must lie within it"
            )
        return [place[image_id] for image_id in wanted]

    @property
    def has_val(self) -> bool:
        """Whether there are images to validate on."""
        return "val" in self.datasets and len(self.datasets["val"]) > 0

    def loader(self, split: str) -> DataLoader[Sample]:
        """Batches of one image, in order; each process its own images if there are several."""
        dataset = self.datasets[split]
        return DataLoader(
            dataset,
            batch_size=1,
            sampler=ShardSampler(len(dataset), *ranks(self.trainer)),
            num_workers=self.num_workers,
            collate_fn=one_sample,
            pin_memory=torch.cuda.is_available(),
        )


def one_sample(batch: list[Sample]) -> Sample:
    """Images differ in size, so a batch is one image."""
    return batch[0]
