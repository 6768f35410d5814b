"""Predictions as files: in VOC's and COCO's formats and as tables for other programs, and for ours.

Ours is `predictions.npz`: plain arrays, unrounded, from which figures can be computed again.
"""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.disk.files import replacing, write_text
from detection.errors import UserError

PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class DetectionPredictions:
    """All detections in the test images, and their ground truth.

    Attributes:
        detections: (D, 7) double: image, label, score, half-open xyxy.
        gt: (T, 7) double: image, label, difficult, half-open xyxy.
        image_ids: names of the images.
        class_names: names of the labels.
    """

    detections: Tensor
    gt: Tensor
    image_ids: Sequence[str]
    class_names: Sequence[str]

    def save(self, run_dir: Path) -> None:
        """`detections/` in VOC's and COCO's formats, and `predictions.npz`."""
        write_detections(run_dir / "detections", self.detections, self.image_ids, self.class_names)
        arrays = {"detections": self.detections.numpy(), "gt": self.gt.numpy()}
        names = {"image_ids": np.array(self.image_ids), "class_names": np.array(self.class_names)}
        write_arrays(run_dir / PREDICTIONS, arrays | names)

    @classmethod
    def load(cls, run_dir: Path) -> "DetectionPredictions":
        """Those of a run.

        Raises:
            UserError: the run left none.
        """
        kept = read_arrays(run_dir / PREDICTIONS)
        detections, gt = (torch.from_numpy(kept[name]) for name in ("detections", "gt"))
        return cls(detections, gt, kept["image_ids"].tolist(), kept["class_names"].tolist())


@dataclass(frozen=True)
class GuessPredictions:
    """A classifier's best guesses for every test image.

    Attributes:
        table: see `TopKErrors.table`.
        confusion: (C, C) images of each class by the class that they were taken for.
        images: names, of the table's rows.
        class_names: names of the labels.
    """

    table: Mapping[str, Tensor]
    confusion: Tensor
    images: Sequence[str]
    class_names: Sequence[str]

    def save(self, run_dir: Path) -> None:
        """`predictions.csv`, `confusion.csv` and `predictions.npz`."""
        write_guesses(run_dir, self.table, self.confusion, self.images, self.class_names)
        arrays = {name: value.numpy() for name, value in self.table.items()}
        arrays["confusion"] = self.confusion.numpy()
        names = {"images": np.array(self.images), "class_names": np.array(self.class_names)}
        write_arrays(run_dir / PREDICTIONS, arrays | names)

    @classmethod
    def load(cls, run_dir: Path) -> "GuessPredictions":
        """Those of a run.

        Raises:
            UserError: the run left none.
        """
        kept = read_arrays(run_dir / PREDICTIONS)
        images, names = kept.pop("images").tolist(), kept.pop("class_names").tolist()
        table = {name: torch.from_numpy(value) for name, value in kept.items()}
        return cls(table, table.pop("confusion"), images, names)


@dataclass(frozen=True)
class LocalizationPredictions:
    """The guesses of a localiser for every test image, each with its box.

    Attributes:
        table: see `LocalizationError.table`.
        images: names, of the table's rows.
        class_names: names of the labels.
    """

    table: Mapping[str, Tensor]
    images: Sequence[str]
    class_names: Sequence[str]

    def save(self, run_dir: Path) -> None:
        """`predictions.csv`, a line a guess, and `predictions.npz`."""
        columns = (self.table[n].tolist() for n in ("labels", "guesses", "scores", "boxes", "ious"))
        with (
            replacing(run_dir / "predictions.csv") as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(
                ["image", "class", "guess", "score", "x1", "y1", "x2", "y2", "iou_with_class"]
            )
            for image, label, *guesses in zip(self.images, *columns, strict=True):
                for guess, score, box, iou in zip(*guesses, strict=False):
                    if guess >= 0:
                        pair = (self.class_names[label], self.class_names[guess])
                        writer.writerow([image, *pair, score, *box, iou])
        arrays = {name: value.numpy() for name, value in self.table.items()}
        names = {"images": np.array(self.images), "class_names": np.array(self.class_names)}
        write_arrays(run_dir / PREDICTIONS, arrays | names)

    @classmethod
    def load(cls, run_dir: Path) -> "LocalizationPredictions":
        """Those of a run.

        Raises:
            UserError: the run left none.
        """
        kept = read_arrays(run_dir / PREDICTIONS)
        images, names = kept.pop("images").tolist(), kept.pop("class_names").tolist()
        return cls({name: torch.from_numpy(value) for name, value in kept.items()}, images, names)


@dataclass(frozen=True)
class ScorePredictions:
    """Scores of all classes for every test image.

    Attributes:
        scores: (N, C).
        labels: (N, C): 1 there, -1 not there, 0 not counted.
        images: names of the N images.
        class_names: names of the labels.
    """

    scores: Tensor
    labels: Tensor
    images: Sequence[str]
    class_names: Sequence[str]

    def save(self, run_dir: Path) -> None:
        """`scores.csv`, a line an image, and `predictions.npz`."""
        with (
            replacing(run_dir / "scores.csv") as temporary,
            temporary.open("w", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["image", *self.class_names])
            rows = zip(self.images, self.scores.tolist(), strict=True)
            writer.writerows([image, *scores] for image, scores in rows)
        arrays = {"scores": self.scores.numpy(), "labels": self.labels.numpy()}
        names = {"images": np.array(self.images), "class_names": np.array(self.class_names)}
        write_arrays(run_dir / PREDICTIONS, arrays | names)

    @classmethod
    def load(cls, run_dir: Path) -> "ScorePredictions":
        """Those of a run.

        Raises:
            UserError: the run left none.
        """
        kept = read_arrays(run_dir / PREDICTIONS)
        scores, labels = (torch.from_numpy(kept[name]) for name in ("scores", "labels"))
        return cls(scores, labels, kept["images"].tolist(), kept["class_names"].tolist())


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write an npz file whole."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an npz file; nothing in it is run.

    Raises:
        UserError: it is missing.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing: the run was tested by an older version, or not at all")
    with np.load(path, allow_pickle=False) as kept:
        return dict(kept)


def write_detections(
    folder: Path, detections: Tensor, image_ids: Sequence[str], class_names: Sequence[str]
) -> None:
    """Write `comp4_det_test_<class>.txt` for each class, and `detections.json`.

    Scores and corners are not rounded, so that another evaluator finds the same order. Class
    after class, for there may be millions.

    Args:
        folder: of the files.
        detections: (D, 7) double: image, label, score, half-open xyxy.
        image_ids: names of the images.
        class_names: names of the labels.
    """
    with replacing(folder / "detections.json") as temporary, temporary.open("w") as coco:
        separator = "[\n"
        for label, class_name in enumerate(class_names):
            lines = []
            for image, _, score, x1, y1, x2, y2 in detections[detections[:, 1] == label].tolist():
                name = image_ids[int(image)]
                # VOC's corners count from 1 and are inclusive
                lines.append(f"{name} {score!r} {x1 + 1!r} {y1 + 1!r} {x2!r} {y2!r}\n")
                row = {"image_id": name, "category_id": label + 1,
                       "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}  # fmt: skip
                coco.write(separator + json.dumps(row))
                separator = ",\n"
            name = file_name(class_name, label)
            write_text(folder / f"comp4_det_test_{name}.txt", "".join(lines))
        coco.write("[]\n" if separator == "[\n" else "\n]\n")


def file_name(class_name: str, label: int) -> str:
    """A class's name as a part of a file's: as it is where every system takes it.

    Else without what it does not take, with its number, so that no two are alike.

    >>> file_name("potted plant", 0), file_name("a/b", 1), file_name("猫", 2)
    ('potted plant', 'a_b_class_2', '猫')
    """
    kept = re.sub(r"[^\w .+-]", "_", class_name)[:60].strip(" .")
    same = kept == class_name and len(kept.encode()) <= 200
    return kept if same else f"{kept}_class_{label + 1}"


def write_guesses(
    folder: Path,
    table: Mapping[str, Tensor],
    confusion: Tensor,
    image_names: Sequence[str],
    class_names: Sequence[str],
) -> None:
    """Write `predictions.csv`, a line an image, and `confusion.csv`, a line a class.

    Args:
        folder: of the files.
        table: see `TopKErrors.table`.
        confusion: (C, C) images of each class by the class that they were taken for.
        image_names: of the table's rows.
        class_names: names of the labels.
    """
    count = table["guesses"].shape[1]
    heading = [f"{kind}_{n + 1}" for n in range(count) for kind in ("guess", "score")]
    columns = (table[name].tolist() for name in ("labels", "guesses", "scores"))
    with (
        replacing(folder / "predictions.csv") as temporary,
        temporary.open("w", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "class", *heading])
        for image, label, guesses, scores in zip(image_names, *columns, strict=True):
            pairs = zip(guesses, scores, strict=True)
            found = [value for guess, score in pairs for value in (class_names[guess], score)]
            writer.writerow([image, class_names[label], *found])
    with replacing(folder / "confusion.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class \\ taken for", *class_names])
        writer.writerows(
            [name, *row] for name, row in zip(class_names, confusion.tolist(), strict=True)
        )
