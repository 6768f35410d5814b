"""Caltech101, split as SPP-net does: 30 training and up to 50 test images a class."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detection.data.folders.class_folders import first_folder, image_names
from detection.errors import UserError


class Caltech101:
    """A folder for each of 102 classes, background among them (SPP-net, section 3.3).

    Args:
        root: holds the folders, or `101_ObjectCategories`, or `caltech101/101_ObjectCategories`.
        train: images a class.
        test: at most this many others a class.
        seed: of the split, or a list of one. `train.py` takes several, for a run on each.

    Raises:
        UserError: nothing is there, or several seeds.
    """

    def __init__(self, root: Path, *, train: int, test: int, seed: int | Sequence[int]) -> None:
        inner = [p for p in ("101_ObjectCategories", "caltech101/101_ObjectCategories")
                 if (root / p).is_dir()]  # fmt: skip
        self.root = first_folder(root, inner) if inner else root
        seeds = [seed] if isinstance(seed, int) else list(seed)
        if len(seeds) != 1:
            raise UserError("data.layout.seed=[N]: a checkpoint is tested on one split, not on all")
        self.options = (train, test, seeds[0])
        self.class_folders = sorted(p.name for p in self.root.iterdir() if p.is_dir())
        if not self.class_folders:
            raise UserError(
                f"data.root={root} holds no Caltech101: looked for 101_ObjectCategories, or a "
                "folder for each class"
            )

    @property
    def class_names(self) -> list[str]:
        """Names of the folders."""
        return self.class_folders

    @property
    def splits(self) -> tuple[str, ...]:
        """There is no list of validation images."""
        return ("train", "test")

    def fingerprint(self, split: str) -> str:
        """Times at which images were last added or removed, and the split's options."""
        times = [(self.root / name).stat().st_mtime_ns for name in self.class_folders]
        return f"{self.class_folders} {self.options} {times}"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """A random choice of each class's images.

        Raises:
            UserError: a class has no image left to test on.
        """
        train, test, seed = self.options
        for label, name in enumerate(self.class_folders):
            files = image_names(self.root / name)
            if len(files) <= train:
                raise UserError(
                    f"folder {self.root / name} holds {len(files)} images: {train} to train on "
                    "and at least one to test on are needed (data.layout.train)"
                )
            order = np.random.default_rng([seed, label]).permutation(len(files))
            chosen = order[:train] if split == "train" else order[train : train + test]
            for row in sorted(chosen.tolist()):
                yield f"{name}/{files[row]}", label
