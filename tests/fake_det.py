"""Small trees in the layouts of ILSVRC's detection data."""

from pathlib import Path

import numpy as np
from PIL import Image

from detection.data.ilsvrc.detection import det_classes

WNIDS = list(det_classes())
Box = tuple[str, int, int, int, int]  # wnid, and 0-based inclusive corners


class FakeDET:
    """Builds a tree in the layout of 2015 ("kaggle") or of the archives ("2013")."""

    def __init__(self, root: Path, layout: str = "kaggle") -> None:
        self.root = root
        if layout == "kaggle":
            base = root / "ILSVRC"
            self.images = {s: base / "Data/DET" / s for s in ("train", "val", "test")}
            self.boxes = {s: base / "Annotations/DET" / s for s in ("train", "val")}
            self.lists = base / "ImageSets/DET"
            self.train_folder = "ILSVRC2013_train/"
        else:
            self.images = {s: root / f"ILSVRC2013_DET_{s}" for s in ("train", "val", "test")}
            self.boxes = {s: root / f"ILSVRC2013_DET_bbox_{s}" for s in ("train", "val")}
            self.lists = root / "ILSVRC2013_devkit/data/det_lists"
            self.train_folder = ""
        self.layout = layout
        for folder in (*self.images.values(), *self.boxes.values(), self.lists):
            folder.mkdir(parents=True)
        self.val: list[str] = []
        self.positives: dict[str, list[str]] = {wnid: [] for wnid in WNIDS}
        (root / "ILSVRC2013_devkit/data").mkdir(parents=True, exist_ok=True)
        self.blacklist()

    def blacklist(self, *lines: str) -> None:
        """Write the blacklist."""
        path = self.root / "ILSVRC2013_devkit/data/ILSVRC2013_det_validation_blacklist.txt"
        path.write_text("".join(f"{line}\n" for line in lines))

    def add(self, split: str, name: str, boxes: list[Box], size=(120, 160), xml_size=None) -> None:
        """An image and its boxes; XML files may tell another size."""
        noise = np.random.default_rng(len(name)).integers(0, 255, (*size, 3), np.uint8)
        path = self.images[split] / f"{name}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(path)
        height, width = xml_size or size
        objects = "".join(
            f"<object><name>{wnid}</name><bndbox><xmin>{x1}</xmin><xmax>{x2}</xmax>"
            f"<ymin>{y1}</ymin><ymax>{y2}</ymax></bndbox></object>"
            for wnid, x1, y1, x2, y2 in boxes
        )
        xml = self.boxes[split] / f"{name}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        xml.write_text(
            f"<annotation><filename>{name}</filename><size><width>{width}</width>"
            f"<height>{height}</height><depth>3</depth></size>{objects}</annotation>"
        )

    def add_val(self, boxes: list[Box], **options) -> str:
        """The next image of val."""
        name = f"ILSVRC2012_val_{len(self.val) + 1:08d}"
        self.val.append(name)
        self.add("val", name, boxes, **options)
        return name

    def add_train(self, wnid: str, boxes: list[Box]) -> str:
        """The next image of a class of train; its id below the folder of images."""
        number = len(self.positives[wnid])
        name = f"{self.train_folder}{wnid}/{wnid}_{number}"
        self.positives[wnid].append(name)
        self.add("train", name, boxes)
        return name

    def write_lists(self) -> None:
        """All lists, in the layout's own format."""
        lines = [f"{name} {number}\n" for number, name in enumerate(self.val, 1)]
        (self.lists / "val.txt").write_text("".join(lines))
        for label, wnid in enumerate(WNIDS, 1):
            ids = self.positives[wnid]
            if self.layout == "kaggle":
                rows = [f"{i} 1\n" for i in ids] + ["ILSVRC2013_train_extra0/nothing -1\n"]
                (self.lists / f"train_{label}.txt").write_text("".join(rows))
            else:
                rows = [f"{i.rpartition('/')[2]}\n" for i in ids]
                (self.lists / f"train_pos_{label}.txt").write_text("".join(rows))


def small_det(root: Path, layout: str = "kaggle", images: int = 12) -> FakeDET:
    """Val images with an object of each of two classes, and three train images of either."""
    made = FakeDET(root, layout)
    for number in range(images):
        x = 5 * (number % 4)
        made.add_val([(WNIDS[0], x, 10, x + 50, 70), (WNIDS[1], 90, 20, 150, 110)])
    for wnid in WNIDS[:2]:
        for _ in range(3):
            made.add_train(wnid, [(wnid, 20, 20, 99, 99), (wnid, 100, 10, 140, 60)])
    made.write_lists()
    return made
