"""Images in a folder for each class, as torchvision's `ImageFolder` reads them."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from detection.disk.images import IMAGE_SUFFIXES
from detection.errors import UserError

log = logging.getLogger(__name__)


class ClassFolders:
    """`<train>/<class>/*.JPEG` and `<test>/<class>/*.JPEG`, perhaps `val/<class>/*.JPEG`.

    Args:
        root: holds the folders of the splits.
        train: their names; the first that is there counts.
        test: the same of the images to test on.
        inside: folder below a class's that holds its images, or "".

    Raises:
        UserError: a split's folder is missing, or one of a class's.
    """

    def __init__(
        self,
        root: Path,
        train: Sequence[str] = ("train",),
        test: Sequence[str] = ("test", "val"),
        inside: str = "",
    ) -> None:
        self.root = root
        self.folders = {
            split: first_folder(root, names) for split, names in (("train", train), ("test", test))
        }
        if (root / "val").is_dir() and root / "val" not in self.folders.values():
            self.folders["val"] = root / "val"
        self.inside = inside
        self.class_folders = sorted(p.name for p in self.folders["train"].iterdir() if p.is_dir())
        if not self.class_folders:
            raise UserError(f"{self.folders['train']} holds no folder: each class needs one")
        for folder in self.folders.values():
            others = {p.name for p in folder.iterdir() if p.is_dir()}
            unknown = sorted(others - set(self.class_folders) - {inside})
            if unknown:
                raise UserError(
                    f"folder {folder / unknown[0]} is of a class that {self.folders['train']} does "
                    "not have"
                )

    @property
    def class_names(self) -> list[str]:
        """Names of the folders."""
        return self.class_folders

    @property
    def splits(self) -> tuple[str, ...]:
        """Those with a folder; `val` beside `test` is what to validate on."""
        return tuple(self.folders)

    def fingerprint(self, split: str) -> str:
        """Times at which images were last added or removed."""
        folders = [self.class_folder(split, name) for name in self.class_folders]
        return f"{self.class_folders} {[f.stat().st_mtime_ns for f in folders]}"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """Class by class, in alphabetical order."""
        for label, name in enumerate(self.class_folders):
            folder = self.class_folder(split, name)
            names = image_names(folder)
            if not names:
                raise UserError(f"folder {folder} holds no image: class {name} needs some")
            prefix = folder.relative_to(self.root).as_posix()
            for file in names:
                yield f"{prefix}/{file}", label

    def class_folder(self, split: str, name: str) -> Path:
        """A class's folder of images."""
        folder = self.folders[split] / name / self.inside
        if not folder.is_dir():
            raise UserError(
                f"folder {folder} is missing: every class of {self.folders['train']} needs one"
            )
        return folder


def first_folder(root: Path, names: Sequence[str]) -> Path:
    """The first of some folders that is there."""
    for name in names:
        if (root / name).is_dir():
            return root / name
    found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise UserError(f"{root}: looked for a folder {' or '.join(names)}, found {found}")


def image_names(folder: Path, tell: bool = True) -> list[str]:
    """Names of the images in a folder, sorted; what is left out is told."""
    with os.scandir(folder) as entries:
        found = sorted((entry.name, entry.is_file()) for entry in entries)
    images = [name for name, file in found if file and name.lower().endswith(IMAGE_SUFFIXES)]
    if tell and len(images) < len(found):
        others = sorted({name for name, _ in found} - set(images))
        log.warning(
            "%s: %d files or folders are no images (%s), such as %s: left out",
            folder, len(others), " ".join(IMAGE_SUFFIXES), others[0],
        )  # fmt: skip
    return images
