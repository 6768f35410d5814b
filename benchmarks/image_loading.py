"""Images a second a core, from JPEG to augmented tensor: ours against torchvision's v2 transforms.

Both scale the shorter side to 256, cut out 224 and flip; ours with albumentations. On the JPEGs of
a folder (argument), or on drawn ones of 375×500 and 768×1024.
"""

import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.timing import compare
from detection.data.classification import ClassificationSplit
from detection.data.examples import WholeImages
from detection.data.folders.class_folders import ClassFolders
from detection.data.image_index import open_index

IMAGES = 100


def draw(folder: Path, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for number in range(IMAGES):
        coarse = generator.integers(0, 255, (size[0] // 16, size[1] // 16, 3), np.uint8)
        path = folder / "train" / "things" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path)
    (folder / "test" / "things").mkdir(parents=True)


def link(folder: Path, photographs: Path) -> None:
    target = folder / "train" / "things"
    target.mkdir(parents=True)
    for path in sorted(photographs.rglob("*.jpg"))[:IMAGES]:
        (target / path.name).symlink_to(path.resolve())
    (folder / "test" / "things").mkdir(parents=True)


def time_both(title: str, folder: Path) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    index = open_index(folder / "cache", "some", ClassFolders(folder), "train")
    examples = WholeImages(A.RandomCrop, [A.HorizontalFlip(p=0.5)])
    ours = examples.of(ClassificationSplit(index), side_px=256, input_px=224)
    for antialias in (True, False):
        theirs = peer(folder / "train", antialias)
        count = len(theirs)
        compare(
            f"{title}, {count} images, 1 thread",
            lambda count=count: load_all(ours, [(n, n) for n in range(count)]),
            "ImageFolder + v2" + ("" if antialias else ", not antialiased"),
            partial(load_all, theirs, range(count)),
            runs=5,
        )


def peer(folder: Path, antialias: bool) -> ImageFolder:
    steps = [v2.ToImage(), v2.Resize(256, antialias=antialias), v2.RandomCrop(224),
             v2.RandomHorizontalFlip()]  # fmt: skip
    return ImageFolder(folder, v2.Compose(steps))


def load_all(images: Any, keys: Iterable[Any]) -> None:
    for key in keys:
        images[key]  # and let go, as a training that is done with it


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 1:
            link(Path(folder) / "photographs", Path(sys.argv[1]))
            time_both(sys.argv[1], Path(folder) / "photographs")
        for size in ((375, 500), (768, 1024)):
            draw(Path(folder) / str(size), size)
            time_both(f"{size[0]}×{size[1]}", Path(folder) / str(size))


if __name__ == "__main__":
    main()
