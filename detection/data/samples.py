"""One image with what is known of it, and the data set that yields them."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.disk.images import read_image
from detection.errors import UserError
from detection.proposals.published import MatBoxes
from detection.proposals.store import ProposalStore

log = logging.getLogger(__name__)

BadBoxes = Literal["clip", "refuse"]


@dataclass
class Sample:
    """An image and its truths.

    Attributes:
        image: (3, H, W) uint8, RGB.
        boxes: (N, 4) truths, float32 xyxy pixels, half-open; N may be 0.
        labels: (N,) int64 in [0, C).
        difficult: (N,) bool.
        proposals: (P, 4) boxes to look at, without the truths.
        image_id: the file's name without suffix.
        index: place in its data set.
    """

    image: Tensor
    boxes: Tensor
    labels: Tensor
    difficult: Tensor
    proposals: Tensor
    image_id: str
    index: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.image.shape[1]), int(self.image.shape[2])


class ImageFolder(Protocol):
    """Images and annotations on disk, in whatever layout."""

    root: Path

    def split_ids(
        self, named: Mapping[str, str | None], fractions: Mapping[str, float], seed: int
    ) -> dict[str, list[str]]:
        """Image ids of "train", "val" and "test" (those that there are)."""
        ...

    def ids(self, name: str) -> list[str]:
        """Image ids of a list that the data has."""
        ...

    def classes(self, image_ids: list[str]) -> list[str]:
        """Names of the classes, for images of the data."""
        ...

    def image_path(self, image_id: str) -> Path:
        """The file of an image."""
        ...

    def annotation(self, image_id: str) -> VOCAnnotation:
        """What is known of an image."""
        ...

    def is_exhaustive(self, image_id: str) -> bool:
        """Whether all objects of an image are annotated."""
        ...

    def is_annotated(self, name: str) -> bool:
        """Whether a split of this name has public annotations."""
        ...


class DetectionDataset(Dataset[Sample]):
    """The images of one split; annotations are read and checked when it is made.

    Args:
        folder: of the images and annotations.
        image_ids: the images, in order.
        class_names: their order gives the labels.
        bad_boxes: a box that leaves the image is clipped (one of no area is dropped, and told
            of), or refused.
        use_difficult: keep difficult objects among the truths.

    Raises:
        UserError: an annotation that is malformed or names an unknown class.
    """

    def __init__(
        self,
        folder: ImageFolder,
        image_ids: Sequence[str],
        class_names: Sequence[str],
        bad_boxes: BadBoxes = "clip",
        use_difficult: bool = True,
    ) -> None:
        self.image_ids = list(image_ids)
        self.paths = [folder.image_path(i) for i in self.image_ids]
        self.exhaustive = [folder.is_exhaustive(i) for i in self.image_ids]
        self.searched = [n for n, whole in enumerate(self.exhaustive) if whole]
        self.place = {index: row for row, index in enumerate(self.searched)}  # in the store
        self.store: ProposalStore | MatBoxes | None = None
        self.truths: list[tuple[Tensor, Tensor, Tensor]] = []
        labels = {name: label for label, name in enumerate(class_names)}
        told: list[str] = []
        for image_id in self.image_ids:
            annotation = folder.annotation(image_id)
            objects = checked_objects(annotation, bad_boxes, told)
            for thing in objects:
                if thing.name not in labels:
                    raise UserError(
                        f"annotation {annotation.path}: class {thing.name!r} is not in the list "
                        f"of classes {list(class_names)}; set data.classes="
                    )
            kept = [o for o in objects if use_difficult or not o.difficult]
            self.truths.append(as_tensors(kept, labels))
        if told:
            log.warning("%d bad boxes: %s", len(told), "; ".join(told))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        pixels = torch.from_numpy(read_image(self.paths[index]))
        image = pixels.permute(2, 0, 1).contiguous()  # (3, H, W)
        proposals = self.proposals(index)
        return Sample(image, *self.truths[index], proposals, self.image_ids[index], index)

    def proposals(self, index: int) -> Tensor:
        """The (P, 4) proposals of an image; none before the store is set.

        None either where not all objects are annotated, for nothing there is surely background.
        """
        if self.store is None or index not in self.place:
            return torch.zeros(0, 4)
        return torch.from_numpy(self.store[self.place[index]])

    def regions(self, index: int) -> Tensor:
        """Truths (N, 4), then proposals (P, 4), of an image."""
        return torch.cat([self.truths[index][0], self.proposals(index)])

    @property
    def num_objects(self) -> int:
        """Truths in all images."""
        return sum(len(boxes) for boxes, _, _ in self.truths)


def checked_objects(
    annotation: VOCAnnotation, bad_boxes: BadBoxes, told: list[str]
) -> list[VOCObject]:
    """The objects with boxes inside the image; what was changed is appended to `told`."""
    kept = []
    for number, thing in enumerate(annotation.objects, 1):
        x1, y1, x2, y2 = thing.box
        inside = (
            max(x1, 0.0),
            max(y1, 0.0),
            min(x2, float(annotation.width)),
            min(y2, float(annotation.height)),
        )
        # One inclusive pixel (xmin = xmax) is a slip of the mouse: it counts as no area.
        no_area = inside[2] - inside[0] <= 1 or inside[3] - inside[1] <= 1
        if inside == thing.box and not no_area:
            kept.append(thing)
            continue
        wrong = "has no area" if no_area else "leaves the image"
        corners = f"({x1 + 1:g}, {y1 + 1:g}, {x2:g}, {y2:g})"
        fault = f"{annotation.path} object {number} ({thing.name}) {corners} {wrong}"
        if bad_boxes == "refuse":
            raise UserError(f"{fault}; mend it, or set data.bad_boxes=clip")
        told.append(f"{fault}: {'dropped' if no_area else 'clipped'}")
        if not no_area:
            kept.append(VOCObject(**{**vars(thing), "box": inside}))
    return kept


def as_tensors(
    objects: Sequence[VOCObject], labels: dict[str, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 4), labels (N,) and difficult flags (N,) of some objects."""
    return (
        torch.tensor([o.box for o in objects], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([labels[o.name] for o in objects], dtype=torch.long),
        torch.tensor([o.difficult for o in objects], dtype=torch.bool),
    )
