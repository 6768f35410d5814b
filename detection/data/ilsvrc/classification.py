"""ILSVRC's classification data: 1.28 million images of 1,000 classes."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torchvision.models import AlexNet_Weights

from detection.backbones.overfeat_weights import released_wnids
from detection.data.folders.class_folders import ClassFolders, first_folder
from detection.data.voc.annotation import read_annotation
from detection.disk.arrays import fingerprint
from detection.errors import UserError

KAGGLE = Path("ILSVRC")
FIRST_PIXEL = 0  # corners of ILSVRC's boxes count from 0


def ilsvrc_cls(root: Path) -> "KaggleCls | ClassFolders":
    """The data in Kaggle's layout (`ILSVRC/Data/CLS-LOC`) or torchvision's (`train`, `val`).

    Raises:
        UserError: neither is there; says what was looked for and what was found.
    """
    if (root / KAGGLE / "Data" / "CLS-LOC").is_dir():
        return KaggleCls(root)
    if (root / "train").is_dir():
        return NamedFolders(root, test=("val",))
    found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
    raise UserError(
        f"data.root={root} holds no ILSVRC classification data: looked for ILSVRC/Data/CLS-LOC "
        f"(Kaggle) and train (a folder a class), found {found}"
    )


class NamedFolders(ClassFolders):
    """torchvision's layout; all 1,000 classes have their names."""

    @property
    def class_names(self) -> list[str]:
        """See `names_of`."""
        return names_of(self.class_folders, synset_words(self.root / "LOC_synset_mapping.txt"))


class KaggleCls:
    """The layout of Kaggle's "ImageNet Object Localization Challenge".

    Args:
        root: holds `ILSVRC` and `LOC_synset_mapping.txt`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data = root / KAGGLE / "Data" / "CLS-LOC"
        if not self.data.is_dir():
            found = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
            raise UserError(
                f"data.root={root} holds no ILSVRC data: looked for ILSVRC/Data/CLS-LOC (Kaggle), "
                f"found {found}"
            )
        self.lists = root / KAGGLE / "ImageSets" / "CLS-LOC"
        self.boxes = root / KAGGLE / "Annotations" / "CLS-LOC" / "val"
        self.solution = root / "LOC_val_solution.csv"
        words = synset_words(root / "LOC_synset_mapping.txt")
        train = first_folder(self.data, ["train"])
        self.wnids = sorted(words) or sorted(p.name for p in train.iterdir() if p.is_dir())
        self.words = names_of(self.wnids, words)
        self.label = {wnid: n for n, wnid in enumerate(self.wnids)}
        missing = [w for w in self.wnids if not (train / w).is_dir()]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(self.wnids)} class folders are missing, such as "
                f"{train / missing[0]}: unpack the archive again"
            )

    @property
    def class_names(self) -> list[str]:
        """Of `names_of`, in alphabetical order of wnids, as torchvision counts."""
        return self.words

    @property
    def splits(self) -> tuple[str, ...]:
        """There is no list of validation images."""
        return ("train", "test")

    def fingerprint(self, split: str) -> str:
        """The files that are read: the list, and what answers for the images of val."""
        files = [self.list_of(split)]
        if split == "test" and self.solution.is_file():
            files.append(self.solution)
        elif split == "test" and self.boxes.is_dir():
            files += sorted(self.boxes.glob("*.xml"))
        return f"{self.wnids} {files[0]} {fingerprint(files=files)}"

    def list_of(self, split: str) -> Path:
        """The file that lists a split's images."""
        file = self.lists / ("train_cls.txt" if split == "train" else "val.txt")
        if not file.is_file():
            raise UserError(f"{file} is missing: it lists the {split} images")
        return file

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """As the lists have them; the classes of val come from its solution, or its boxes."""
        prefix = (KAGGLE / "Data" / "CLS-LOC" / ("train" if split == "train" else "val")).as_posix()
        answers = self.answers() if split == "test" else {}
        file = self.list_of(split)
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if not line.strip():
                continue
            name = line.split()[0]
            wnid = name.partition("/")[0] if split == "train" else self.answer(name, answers)
            if wnid not in self.label:
                raise UserError(f"{file} line {number}: {name} is of unknown class {wnid}")
            yield f"{prefix}/{name}.JPEG", self.label[wnid]

    def answers(self) -> dict[str, str]:
        """Val image → its wnid, from the solution file if it is there.

        Raises:
            UserError: it has other columns, or a line without an answer.
        """
        if not self.solution.is_file():
            return {}
        with self.solution.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        for number, row in enumerate(rows, 2):
            if not row.get("ImageId") or not (row.get("PredictionString") or "").split():
                raise UserError(
                    f"{self.solution} line {number}: an ImageId and a PredictionString, the class "
                    "first, are wanted: unpack the archive again"
                )
        return {row["ImageId"]: row["PredictionString"].split()[0] for row in rows}

    def answer(self, name: str, answers: dict[str, str]) -> str:
        """The wnid of a val image."""
        if answers:
            return answers.get(name, "none")
        objects = read_annotation(self.boxes / f"{name}.xml", FIRST_PIXEL).objects
        return objects[0].name if objects else "none"


def names_of(wnids: Sequence[str], words: Mapping[str, str]) -> list[str]:
    """Names of classes, the same in both layouts.

    Args:
        wnids: of the classes, sorted.
        words: first words by wnid, for parts of the data set; the 1,000 classes of ImageNet have
            torchvision's names, which tell the crane that flies from the one that lifts.
    """
    if list(wnids) == sorted(released_wnids()):  # a thousand folders may be of anything
        return list(AlexNet_Weights.IMAGENET1K_V1.meta["categories"])
    return [words.get(wnid, wnid) for wnid in wnids]


def synset_words(path: Path) -> dict[str, str]:
    """Wnid → its first word, from lines such as `n01440764 tench, Tinca tinca`; {} if missing."""
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(" ") for line in lines if line)
    return {wnid: words.split(",")[0] for wnid, _, words in pairs}
