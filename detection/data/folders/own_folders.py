"""Photographs of one's own, a folder for each class, with or without folders for the splits."""

import logging
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from detection.data.folders.class_folders import image_names
from detection.errors import UserError

log = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}


class OwnFolders:
    """`<train>/<class>/*` with `<val>/<class>/*`, `<test>/<class>/*` or both; or `<class>/*` alone.

    Names of the split's folders are those of `SPLIT_NAMES`, in any case. Without a test folder the
    val images are tested on, and without both each class is split in even proportions; images to
    validate on are then held aside from train. Hidden folders are passed over; those without an
    image are told and left out.

    Args:
        root: holds the folders.
        test_share: of each class's images, where there is no folder for them.
        seed: of that split.

    Raises:
        UserError: there are fewer than two classes, or a class to test on cannot be learnt.
    """

    def __init__(self, root: Path, *, test_share: float = 0.2, seed: int = 0) -> None:
        self.root = root
        self.options = (test_share, seed)
        named = {p.name.lower(): p for p in folders_in(root)}
        found = {split: [named[n] for n in names if n in named][:1]
                 for split, names in SPLIT_NAMES.items()}  # fmt: skip
        self.folders = {split: folders[0] for split, folders in found.items() if folders}
        if "train" not in self.folders:
            self.folders = {"train": root}
        if "test" not in self.folders and "val" in self.folders:
            self.folders["test"] = self.folders.pop("val")
        self.is_split_here = "test" not in self.folders
        self.classes = {split: filled(folder) for split, folder in self.folders.items()}
        if len(self.class_names) < 2:
            raise UserError(
                f"{self.folders['train']} has {len(self.class_names)} folders with images, and a "
                f"classifier needs two classes: {root} should hold a folder for each class, or "
                "train and test with these"
            )
        for split, names in self.classes.items():
            unknown = sorted(set(names) - set(self.class_names))
            if unknown:
                raise UserError(
                    f"folder {self.folders[split] / unknown[0]} is of a class that "
                    f"{self.folders['train']} does not have"
                )
        if self.is_split_here:
            log.info(
                "%s has no folder of test images: of each class %.0f %% are tested on "
                "(data.layout.test_share)", root, 100 * test_share,
            )  # fmt: skip

    @cached_property
    def class_names(self) -> list[str]:
        """Names of the folders to train on."""
        return self.classes["train"]

    @property
    def splits(self) -> tuple[str, ...]:
        """`val` is there beside `test` only."""
        return (*self.folders, "test") if self.is_split_here else tuple(self.folders)

    def fingerprint(self, split: str) -> str:
        """Times at which images were last added or removed, and the split's options."""
        folder = self.folders.get(split, self.root)
        times = [(folder / name).stat().st_mtime_ns for name in self.classes.get(split, [])]
        return f"{self.class_names} {folder} {self.options} {times}"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """Class by class, in alphabetical order."""
        source = split if split in self.folders else "train"
        for name in self.classes[source]:
            folder, label = self.folders[source] / name, self.class_names.index(name)
            names = image_names(folder)
            if self.is_split_here:
                names = self.share(names, label, split)
            prefix = folder.relative_to(self.root).as_posix()
            for file in names:
                yield f"{prefix}/{file}", label

    def share(self, names: list[str], label: int, split: str) -> list[str]:
        """A class's images of a split: at random, at least one of each where there are two."""
        test_share, seed = self.options
        count = min(len(names) - 1, max(1, round(test_share * len(names))))
        tested = set(np.random.default_rng([seed, label]).permutation(len(names))[:count].tolist())
        return [file for n, file in enumerate(names) if (n in tested) == (split == "test")]


def folders_in(root: Path) -> list[Path]:
    """Folders in a folder, hidden ones apart, sorted."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def filled(folder: Path) -> list[str]:
    """Names of the folders in a folder that hold images; those that do not are told."""
    folders = folders_in(folder)
    names = [p.name for p in folders if image_names(p, tell=False)]
    empty = [p.name for p in folders if p.name not in names]
    if empty:
        log.warning("%s: folders without an image are left out: %s", folder, ", ".join(empty))
    return names
