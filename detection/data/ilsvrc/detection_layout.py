"""Where ILSVRC DET keeps images, boxes and lists: in the layout of 2015, or of the archives."""

import logging
from dataclasses import dataclass
from pathlib import Path

from detection.errors import UserError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DetLayout:
    """Places of one copy of the data.

    Attributes:
        root: that the user gave.
        images: folder of "train", "val" and "test" images.
        boxes: folder of "train" and "val" annotations.
        lists: folder of the lists of images.
        blacklists: files of val images in which some class is not annotated reliably.
    """

    root: Path
    images: dict[str, Path]
    boxes: dict[str, Path]
    lists: Path
    blacklists: list[Path]

    def ids(self, name: str) -> list[tuple[str, int]]:
        """Image ids below their folder, and their numbers, of a list: "val" or "test".

        Raises:
            UserError: the list is missing or empty.
        """
        path = self.lists / f"{name}.txt"
        if not path.is_file():
            raise UserError(f"{path} is missing: it lists the images of ILSVRC DET's {name} set")
        words = [line.split() for line in path.read_text().splitlines() if line.strip()]
        if not words:
            raise UserError(f"{path} lists no image")
        # the number counts from 1, and is the line's where the list does not tell it
        return [(w[0], int(w[1]) if len(w) > 1 else n) for n, w in enumerate(words, 1)]

    def positives(self, label: int) -> list[str]:
        """Ids of the train images that show a class, below the folder of train images."""
        by_label = self.lists / f"train_{label + 1}.txt"  # "<id> 1" for those that show it
        alone = self.lists / f"train_pos_{label + 1}.txt"  # ids only
        if not by_label.is_file() and not alone.is_file():
            raise UserError(f"{by_label} (or {alone.name}) is missing: it lists a class's images")
        path = by_label if by_label.is_file() else alone
        words = [line.split() for line in path.read_text().splitlines() if line.strip()]
        ids = [w[0] for w in words if path is alone or w[1:] == ["1"]]
        # in 2013's lists an image's folder is the start of its name: n02672831_11478
        return [i if "/" in i else f"{i.partition('_')[0]}/{i}" for i in ids]

    def blacklisted(self) -> dict[int, set[str]]:
        """Number of a val image → wnids whose boxes in it do not count."""
        found: dict[int, set[str]] = {}
        for path in self.blacklists:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                words = line.split()
                if not words:
                    continue
                if len(words) < 2 or not words[0].isdigit():
                    raise UserError(f"{path} line {number} is {line!r}, not a number and a wnid")
                found.setdefault(int(words[0]), set()).add(words[1])
        return found


def find_layout(root: Path) -> DetLayout:
    """The layout of a folder.

    Raises:
        UserError: neither is there; tells what was looked for.
    """
    found = [
        path
        for folder in (root, root / "ILSVRC")
        for pattern in ("*det_validation_blacklist.txt", "*/data/*det_validation_blacklist.txt")
        for path in folder.glob(pattern)
    ]
    blacklists = sorted(found, key=lambda path: path.name)[-1:]  # the newest year's
    if not blacklists:
        log.warning(
            "no ILSVRC201*_det_validation_blacklist.txt in or below %s: put the devkit there if "
            "images with unreliable annotations are to be left out",
            root,
        )
    for base in (root, root / "ILSVRC"):
        if (base / "Data" / "DET").is_dir():
            return DetLayout(
                root,
                {s: base / "Data" / "DET" / s for s in ("train", "val", "test")},
                {s: base / "Annotations" / "DET" / s for s in ("train", "val")},
                base / "ImageSets" / "DET",
                blacklists,
            )
    year = "2014" if (root / "ILSVRC2014_DET_train").is_dir() else "2013"
    if (root / "ILSVRC2013_DET_val").is_dir():
        train = f"ILSVRC{year}_DET"
        return DetLayout(
            root,
            {
                "train": root / f"{train}_train",
                "val": root / "ILSVRC2013_DET_val",
                "test": root / "ILSVRC2013_DET_test",
            },
            {"train": root / f"{train}_bbox_train", "val": root / "ILSVRC2013_DET_bbox_val"},
            root / f"ILSVRC{year}_devkit" / "data" / "det_lists",
            blacklists,
        )
    raise UserError(
        f"data.root={root} holds no ILSVRC DET; looked for ILSVRC/Data/DET (Kaggle, 2015), "
        "Data/DET, and ILSVRC2013_DET_val (archives of 2013 and 2014)"
    )
