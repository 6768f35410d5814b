"""Builds small trees in the layouts of classification data."""

from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n01484850")
WORDS = ("tench", "goldfish", "great white shark")


def write_image(path: Path, seed: int, size: tuple[int, int] = (70, 90)) -> None:
    """A JPEG of random colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (size[0] // 8, size[1] // 8, 3), np.uint8)
    Image.fromarray(coarse).resize((size[1], size[0])).save(path, quality=90)


def kaggle(root: Path, train: int = 4, val: int = 6, solution: bool = True) -> Path:
    """`ILSVRC/Data/CLS-LOC` with its lists; so many training images a class."""
    data, lists = root / "ILSVRC/Data/CLS-LOC", root / "ILSVRC/ImageSets/CLS-LOC"
    lists.mkdir(parents=True)
    names = [f"{w}/{w}_{n}" for w in WNIDS for n in range(train)]
    for number, name in enumerate(names):
        write_image(data / "train" / f"{name}.JPEG", number)
    vals = [f"ILSVRC2012_val_{n:08d}" for n in range(1, val + 1)]
    for number, name in enumerate(vals):
        write_image(data / "val" / f"{name}.JPEG", 1000 + number)
    (lists / "train_cls.txt").write_text("".join(f"{n} {k}\n" for k, n in enumerate(names, 1)))
    (lists / "val.txt").write_text("".join(f"{n} {k}\n" for k, n in enumerate(vals, 1)))
    mapping = [f"{w} {words}, other words\n" for w, words in zip(WNIDS, WORDS, strict=True)]
    (root / "LOC_synset_mapping.txt").write_text("".join(mapping))
    of_val = [WNIDS[n % 3] for n in range(val)]
    if solution:
        rows = [f"{n},{w} 1 2 30 40 \n" for n, w in zip(vals, of_val, strict=True)]
        (root / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(rows))
    else:
        boxes = root / "ILSVRC/Annotations/CLS-LOC/val"
        boxes.mkdir(parents=True)
        for name, wnid in zip(vals, of_val, strict=True):
            (boxes / f"{name}.xml").write_text(
                f"<annotation><filename>{name}</filename><size><width>90</width>"
                f"<height>70</height></size><object><name>{wnid}</name><bndbox><xmin>1</xmin>"
                "<ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>"
            )
    return root


def class_folders(root: Path, train: str = "train", test: str = "val", each: int = 4) -> Path:
    """A folder for each class, as torchvision reads them."""
    for split, first in ((train, 0), (test, 500)):
        for label, wnid in enumerate(WNIDS):
            for n in range(each):
                write_image(root / split / wnid / f"{wnid}_{n}.JPEG", first + 10 * label + n)
    return root


def with_boxes(root: Path) -> Path:
    """ILSVRC's layout with a box for every training image too."""
    boxes = root / "ILSVRC/Annotations/CLS-LOC"
    for image in (root / "ILSVRC/Data/CLS-LOC/train").rglob("*.JPEG"):
        path = boxes / "train" / image.parent.name / f"{image.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<annotation><object><name>{image.parent.name}</name><bndbox><xmin>5</xmin>"
            "<ymin>5</ymin><xmax>70</xmax><ymax>60</ymax></bndbox></object></annotation>"
        )
    return root
