"""Tiny ImageNet's own layout."""

from collections.abc import Iterator
from pathlib import Path

from detection.data.folders.class_folders import ClassFolders
from detection.errors import UserError


class TinyImageNet(ClassFolders):
    """`train/<wnid>/images/*.JPEG`, `val/images/*.JPEG` with `val/val_annotations.txt`.

    The test images have no public labels: val is tested on.

    Args:
        root: `tiny-imagenet-200`, or a part of it.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root, test=("val",), inside="images")
        self.list = root / "val" / "val_annotations.txt"
        words = read_words(root / "words.txt")
        self.words = [words.get(wnid, wnid) for wnid in self.class_folders]

    @property
    def class_names(self) -> list[str]:
        """The first word of each class."""
        return self.words

    def fingerprint(self, split: str) -> str:
        """Of val: its list's time."""
        if split == "train":
            return super().fingerprint(split)
        if not self.list.is_file():
            raise UserError(f"{self.list} is missing: it tells the classes of the val images")
        return f"{self.class_folders} {self.list.stat().st_mtime_ns}"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        """Of val: as its list has them."""
        if split == "train":
            yield from super().entries(split)
            return
        label = {wnid: n for n, wnid in enumerate(self.class_folders)}
        for number, line in enumerate(self.list.read_text(encoding="utf-8").splitlines(), 1):
            name, wnid, *_ = [*line.split("\t"), "", ""]
            if not name or not wnid:
                raise UserError(f"{self.list} line {number}: an image and its class are wanted")
            if wnid not in label:
                raise UserError(f"{self.list} line {number}: class {wnid} is not in train")
            yield f"val/images/{name}", label[wnid]


def read_words(path: Path) -> dict[str, str]:
    """Wnid → its first word, from lines such as `n01440764<tab>tench, Tinca tinca`."""
    if not path.is_file():
        return {}
    pairs = (line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line)
    return {wnid: words.split(",")[0] for wnid, words in pairs}
