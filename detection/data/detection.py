"""Detection annotations: from a folder's objects to the ground truth of each split's images."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from detection.data.box_summary import box_summary
from detection.data.ground_truth import DetectionFolder, GroundTruth, Proposals
from detection.data.samples import NO_PROPOSALS, Sample, Target, as_image
from detection.data.voc.annotation import VOCObject
from detection.data.voc.checks import BadBoxes, checked_objects
from detection.disk.files import write_text
from detection.disk.images import check_pictures, image_size, read_image, read_reduced
from detection.disk.text import some
from detection.errors import UserError
from detection.runtime.distributed import is_first_process

log = logging.getLogger(__name__)

Unknown = Literal["refuse", "leave_out"]
FEW = 2  # remarks that are told one by one


class DetectionSplit(Dataset[Sample]):
    """The images of one split; annotations are read and checked when it is made.

    Args:
        folder: of the images and annotations.
        image_ids: the images, in order.
        class_names: their order gives the labels.
        bad_boxes: a box that leaves the image is clipped (one of no area is dropped, and reported),
            or refused.
        use_difficult: keep difficult objects in the ground truth.
        unknown: an object of a class that is not named is refused, or left out and told.
        beside_dropped: look for negatives in images of which a box was dropped, too.

    Attributes:
        remarks: what was changed or left out, a line each.
        left_out: objects of classes that are not named, by their class.

    Raises:
        UserError: a picture cannot be read, or an annotation is malformed or names an unknown
            class.
    """

    def __init__(
        self,
        folder: DetectionFolder,
        image_ids: Sequence[str],
        class_names: Sequence[str],
        bad_boxes: BadBoxes = "clip",
        use_difficult: bool = True,
        unknown: Unknown = "refuse",
        beside_dropped: bool = True,
    ) -> None:
        self.folder = folder
        self.image_ids = list(image_ids)
        self.paths = [folder.image_path(i) for i in self.image_ids]
        check_pictures(self.paths)
        # images in which all objects are annotated: what is not is background
        self.searched = []
        self.store: Proposals | None = None
        labels = {name: label for label, name in enumerate(class_names)}
        self.remarks: list[str] = []
        self.beside_dropped = 0
        self.left_out: Counter[str] = Counter()
        objects: list[VOCObject] = []
        counts = [0]
        for number, (image_id, path) in enumerate(zip(self.image_ids, self.paths, strict=True)):
            checked = checked_objects(folder.annotation(image_id), path, bad_boxes, self.remarks)
            strange = [thing.name for thing in checked.objects if thing.name not in labels]
            if strange and unknown == "refuse":
                raise UserError(
                    f"annotation {folder.annotation(image_id).path}: class {strange[0]!r} is "
                    f"not in the list of classes {list(class_names)}: name them all in "
                    "data.annotations.classes, or set data.annotations.unknown=leave_out"
                )
            self.left_out.update(strange)
            if folder.is_exhaustive(image_id):
                if beside_dropped or not checked.dropped:
                    self.searched.append(number)
                else:
                    self.beside_dropped += 1
            named = [o for o in checked.objects if o.name in labels]
            kept = [o for o in named if use_difficult or not o.difficult]
            objects += kept
            counts.append(len(kept))
        # arrays, not an object an image
        self._ends = np.cumsum(counts)
        self._gt = GroundTruth(
            torch.tensor([o.box for o in objects], dtype=torch.float32).reshape(-1, 4),
            torch.tensor([labels[o.name] for o in objects], dtype=torch.long),
            torch.tensor([o.difficult for o in objects], dtype=torch.bool),
        )
        self._row = {index: row for row, index in enumerate(self.searched)}  # in the store
        if self.left_out and is_first_process():
            names = some([f"{count} of {name!r}" for name, count in self.left_out.most_common()])
            log.warning("objects of classes that are not named are left out: %s", names)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.paths[index]

    def image_id(self, index: int) -> str:
        """The name of an image."""
        return self.image_ids[index]

    def gt(self, index: int) -> GroundTruth:
        """The objects of an image."""
        rows = slice(int(self._ends[index]), int(self._ends[index + 1]))
        return GroundTruth(*(column[rows] for column in self._gt))

    def target(self, index: int) -> Target:
        """The objects of an image, as metrics take them."""
        return self.gt(index)._asdict()

    def sample(self, index: int, decode_px: int | None = None) -> Sample:
        """See `Split.sample`."""
        path = self.paths[index]
        pixels = read_image(path) if decode_px is None else read_reduced(path, decode_px)
        image = as_image(pixels)
        if decode_px is None:
            image = image.contiguous()  # convolutions of one image start from planes
        sample = Sample(
            image, self.target(index), self.image_ids[index], index, self.proposals(index)
        )
        if decode_px is not None:  # boxes are those of the whole
            width, height = image_size(path)
            sample.stored_px = (height, width)
        return sample

    def find_proposals(self, find: Callable[[list[Path]], Proposals]) -> None:
        """Give the images their proposals.

        Args:
            find: from the files of the images in which all objects are annotated to their boxes.
        """
        self.store = find([self.paths[index] for index in self.searched])

    def proposals(self, index: int) -> Tensor:
        """The (P, 4) proposals of an image; none before they were found.

        None either where not all objects are annotated, for nothing there is surely background.
        """
        if self.store is None or index not in self._row:
            return NO_PROPOSALS
        return torch.from_numpy(np.array(self.store[self._row[index]]))

    def regions(self, index: int) -> Tensor:
        """Ground truth boxes (N, 4), then proposals (P, 4), of an image."""
        return torch.cat([self.gt(index).boxes, self.proposals(index)])

    @property
    def num_objects(self) -> int:
        """Objects in all images."""
        return len(self._gt.labels)

    @property
    def objects(self) -> tuple[Tensor, Tensor]:
        """Boxes (N, 4) and labels (N,) of the objects in all images."""
        return self._gt.boxes, self._gt.labels

    def chosen(self, name: str | None) -> list[int]:
        """Numbers of the images that are on one of the data's lists; of all for None.

        Raises:
            UserError: the list names images that this split does not have.
        """
        if name is None:
            return list(range(len(self)))
        number = {image_id: index for index, image_id in enumerate(self.image_ids)}
        wanted = self.folder.ids(name)
        missing = [image_id for image_id in wanted if image_id not in number]
        if missing:
            raise UserError(
                f"{len(missing)} images of {name} are not in data.splits.train, such as "
                f"{missing[0]}: a stage's split= must lie within it"
            )
        return [number[image_id] for image_id in wanted]


@dataclass(frozen=True)
class SplitRequest:
    """What is asked of a data set's annotations.

    Attributes:
        name: what a person calls the data; part of the names of caches.
        lists: name of the list for each of "train", "val", "test"; None finds one.
        fractions: of a stratified split, where there are no lists.
        seed: of that split.
        val_images: at most this many images are validated on; where there is no list of them they
            are held aside from train, at most a tenth of it. 0: no validation.
        limit: at most this many images of each split, for trials; None: all.
        cache: folder of caches.
    """

    name: str
    lists: Mapping[str, str | None] = field(default_factory=dict)
    fractions: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    val_images: int = 200
    limit: int | None = None
    cache: Path = Path("data/cache")


class DetectionAnnotations:
    """Reads a folder's objects as ground truth for detection.

    Args:
        classes: names in the order of their labels; None: found in the annotations.
        bad_boxes: "clip" or "refuse" (see `DetectionSplit`).
        train_on_difficult: keep difficult objects in training, as R-CNN's and SPP-net's code did
            (roidb_from_voc.m).
        unknown: "refuse" or "leave_out" objects of a class that is not in `classes`.
        negatives_beside_dropped: look for background in training images of which a box of no area
            was dropped, too: the object may be there.

    Raises:
        UserError: two classes have one name.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        bad_boxes: BadBoxes = "clip",
        train_on_difficult: bool = True,
        unknown: Unknown = "refuse",
        negatives_beside_dropped: bool = False,
    ) -> None:
        self.classes = None if classes is None else [str(name) for name in classes]  # or numbers
        twice = [n for n, count in Counter(self.classes or ()).items() if count > 1]
        if twice:
            raise UserError(f"data.annotations.classes names {some(twice)} twice")
        self.unknown: Unknown = unknown
        self.beside_dropped = negatives_beside_dropped
        self.bad_boxes: BadBoxes = bad_boxes
        self.train_on_difficult = train_on_difficult

    def read(
        self, folder: DetectionFolder, request: SplitRequest, splits: Sequence[str]
    ) -> tuple[list[str], dict[str, DetectionSplit]]:
        """Names of the classes, and the splits that are asked for, as far as the data has them.

        Raises:
            UserError: whatever is wrong with lists and annotations.
        """
        ids = folder.split_ids(request.lists, request.fractions, request.seed)
        for split in (s for s in ("train", "test") if s in splits and s not in ids):
            folder.ids(split)  # which says what lists there are
            raise UserError(f"{folder.root} has no {split} images")
        every_id = sorted({i for split in ids.values() for i in split})
        names = list(self.classes or folder.classes(every_id))
        ids = with_validation(ids, folder, request.val_images)
        ids = {split: some[: request.limit] for split, some in ids.items()}
        made = {}
        for split in (s for s in splits if s in ids):
            keep = self.train_on_difficult or split != "train"
            beside = self.beside_dropped or split != "train"
            made[split] = DetectionSplit(
                folder, ids[split], names, self.bad_boxes, keep, self.unknown, beside
            )
            tell_remarks(made[split].remarks, request, split)
            if made[split].beside_dropped and is_first_process():
                log.warning(
                    "%d images of %s hold a box that is dropped, which may be an object: they give "
                    "their boxes and no proposals (data.annotations.negatives_beside_dropped=true: "
                    "these too)", made[split].beside_dropped, split,
                )  # fmt: skip
            public = folder.is_annotated(request.lists.get(split) or split)
            if made[split].num_objects == 0 and made[split].left_out:
                raise UserError(
                    f"no object of the {split} images of {folder.root} is of the classes "
                    f"{some(names)}: there are {some(sorted(made[split].left_out))}"
                )
            if made[split].num_objects == 0 and (split == "train" or (split == "test" and public)):
                few = "" if len(made[split]) else f", for it has {len(every_id)} images in all"
                raise UserError(
                    f"no image of the {split} split of {folder.root} holds an object{few}: choose "
                    f"other lists with data.splits.{split}=, or add images"
                )
            log.info(
                "%s %s: %d images, %d objects, %d classes",
                request.name, split, len(made[split]), made[split].num_objects, len(names),
            )  # fmt: skip
        if "train" in made and is_first_process():
            log.info("%s", box_summary({s: some.objects for s, some in made.items()}, names))
        return names, made


def tell_remarks(remarks: Sequence[str], request: SplitRequest, split: str) -> None:
    """How many boxes were changed, and the first of them; all stand in a file."""
    if not remarks or not is_first_process():
        return
    told = f"{len(remarks)} boxes or sizes are not taken as they stand: {some(remarks, most=FEW)}"
    if len(remarks) > FEW:
        file = request.cache / "remarks" / f"{request.name}-{split}.txt"
        write_text(file, "\n".join(remarks) + "\n")
        told += f"; all are in {file}"
    log.warning("%s", told)


def with_validation(
    ids: Mapping[str, list[str]], folder: DetectionFolder, most: int
) -> dict[str, list[str]]:
    """Splits with validation images: of their own list, else held aside from train.

    Those held aside are spread evenly over train, at most a tenth of it, and only images in which
    all objects are annotated.
    """
    result = dict(ids)
    if most == 0:
        result.pop("val", None)
    elif "val" in ids:
        result["val"] = ids["val"][:most]
    elif "train" in ids:
        whole = [i for i in ids["train"] if folder.is_exhaustive(i)]
        held = held_aside(len(whole), most)
        if len(held):
            val = [whole[row] for row in held]
            aside = set(val)
            result["val"] = val
            result["train"] = [i for i in ids["train"] if i not in aside]
            log.info("%d of %d training images are held aside to validate on", len(val),
                     len(ids["train"]))  # fmt: skip
    return result


def held_aside(images: int, most: int) -> NDArray[np.int64]:
    """Which of the training images are validated on: evenly spread, at most a tenth.

    >>> held_aside(40, 200).tolist(), held_aside(5, 200).tolist()
    ([5, 15, 25, 35], [])
    """
    count = min(most, images // 10)
    return ((np.arange(count) + 0.5) * images / max(count, 1)).astype(np.int64)
