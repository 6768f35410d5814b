"""Localisation data: boxes of an image's label, from every layout."""

import os
import shutil

import numpy as np
import pytest
import torch
from conftest import FakeVOC, real_data
from fake_cls import WNIDS, kaggle, write_image

from detection.data.classification import ClassificationAnnotations
from detection.data.folders.tiny_imagenet import TinyImageNetLoc
from detection.data.ilsvrc.localization import BLACKLIST, KaggleLoc
from detection.data.module import DataModule
from detection.data.shapes.draw_loc import draw_shapes_loc
from detection.data.voc.annotation import VOCObject
from detection.data.voc.localization import VOCLocalization, main_class
from detection.errors import UserError


def module(layout, root, tmp_path, **changes):
    made = DataModule(
        name="x", task="localization", layout=layout, root=str(root),
        annotations=ClassificationAnnotations(), cache=tmp_path / "cache",
        **{"val_images": 0, **changes},
    )  # fmt: skip
    made.setup()
    return made


def of_image(split, name):
    """Label and boxes of the image whose name ends so."""
    (number,) = [n for n in range(len(split)) if split.image_id(n).rpartition("/")[2] == name]
    target = split.target(number)
    return int(target["label"]), target["boxes"].tolist()


def xml(path, size, *things):
    """An ILSVRC annotation: corners as they stand there, from 0 and inclusive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>" for name, (a, b, c, d) in things
    )  # fmt: skip
    path.write_text(
        f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}"
        "</annotation>"
    )


@pytest.fixture
def ilsvrc(tmp_path):
    """Kaggle's layout; JPEGs are of 90×70 pixels."""
    root = kaggle(tmp_path / "ilsvrc", solution=False)
    boxes = root / "ILSVRC/Annotations/CLS-LOC"
    first, second = WNIDS[:2]
    xml(boxes / f"train/{first}/{first}_0.xml", (90, 70), (first, (0, 0, 44, 34)),
        (first, (10, 20, 89, 69)), (second, (1, 2, 3, 4)))  # fmt: skip
    xml(boxes / f"train/{second}/{second}_1.xml", (180, 140), (second, (20, 40, 99, 119)))
    return root


def test_ilsvrc_has_every_box_of_the_label_in_pixels_of_the_jpeg(ilsvrc, tmp_path):
    data = module(KaggleLoc, ilsvrc, tmp_path)
    train = data.split("train")
    assert len(train) == 12
    assert of_image(train, f"{WNIDS[0]}_0.JPEG") == (0, [[0, 0, 45, 35], [10, 20, 90, 70]])
    # an XML of twice the size: its boxes are halved
    assert of_image(train, f"{WNIDS[1]}_1.JPEG") == (1, [[10, 20, 50, 60]])
    assert of_image(train, f"{WNIDS[2]}_3.JPEG") == (2, [])
    assert train.box_counts().sum() == 3
    assert of_image(data.split("test"), "ILSVRC2012_val_00000002.JPEG")[1] == [[1, 2, 31, 41]]


def test_blacklisted_images_have_no_box_and_keep_their_label(ilsvrc, tmp_path, caplog):
    module(KaggleLoc, ilsvrc, tmp_path)
    assert "the published figures leave 1,762 out" in caplog.text
    (ilsvrc / BLACKLIST).write_text("2\n5\n")
    data = module(KaggleLoc, ilsvrc, tmp_path)
    test = data.split("test")
    assert [len(test.target(n)["boxes"]) for n in range(6)] == [1, 0, 1, 1, 0, 1]
    assert [int(test.target(n)["label"]) for n in range(6)] == [0, 1, 2, 0, 1, 2]


def test_an_annotation_of_another_picture_costs_its_boxes_only(ilsvrc, tmp_path, caplog):
    boxes = ilsvrc / "ILSVRC/Annotations/CLS-LOC"
    xml(boxes / f"train/{WNIDS[2]}/{WNIDS[2]}_0.xml", (50, 200), (WNIDS[2], (1, 1, 40, 40)))
    train = module(KaggleLoc, ilsvrc, tmp_path).split("train")
    assert of_image(train, f"{WNIDS[2]}_0.JPEG") == (2, [])
    assert "its boxes are left out" in caplog.text


def test_an_annotation_that_is_mended_is_read_again(tmp_path):
    voc = FakeVOC(tmp_path / "voc")
    voc.add("one", [thing("cat", 1, 2, 30, 30)])
    voc.lists(train=["one"], test=["one"])
    first = module(VOCLocalization, voc.root, tmp_path).split("train")
    assert of_image(first, "one.jpg")[1] == [[1, 2, 30, 30]]
    file = voc.root / "Annotations" / "one.xml"
    file.write_text(file.read_text().replace("<xmax>30", "<xmax>20"))
    os.utime(file, ns=(1, 1))
    again = module(VOCLocalization, voc.root, tmp_path).split("train")
    assert of_image(again, "one.jpg")[1] == [[1, 2, 20, 30]]


def test_ilsvrc_without_its_boxes_or_with_a_bad_blacklist_is_refused(ilsvrc, tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        KaggleLoc(ilsvrc, blacklist=str(tmp_path / "none.txt"))
    bad = tmp_path / "bad.txt"
    bad.write_text("12 cat")
    with pytest.raises(UserError, match="'cat' is not the number of an image"):
        module(lambda root: KaggleLoc(root, str(bad)), ilsvrc, tmp_path)
    shutil.rmtree(ilsvrc / "ILSVRC/Annotations/CLS-LOC/train")
    with pytest.raises(UserError, match="holds the boxes"):
        KaggleLoc(ilsvrc)


def thing(name, *box):
    return VOCObject(name, box)


def test_the_main_class_is_the_most_frequent_then_the_largest():
    small, large = thing("dog", 0, 0, 5, 5), thing("cat", 0, 0, 9, 9)
    assert main_class([small, large]) == "cat"
    assert main_class([small, small, large]) == "dog"
    assert main_class([thing("b", 0, 0, 2, 2), thing("a", 0, 0, 2, 2)]) == "a"


def test_a_voc_folder_as_localisation(tmp_path, caplog):
    voc = FakeVOC(tmp_path / "voc")
    voc.add(
        "one", [thing("cat", 1, 2, 30, 30), thing("dog", 0, 0, 10, 10), thing("dog", 5, 5, 9, 9)]
    )
    voc.add("empty", [])
    voc.add("tested", [thing("cat", 1, 2, 30, 30)])
    voc.lists(train=["one", "empty"], test=["tested"])
    data = module(VOCLocalization, voc.root, tmp_path)
    assert data.class_names == ["cat", "dog"]
    assert len(data.split("train")) == 1
    assert of_image(data.split("train"), "one.jpg") == (1, [[0, 0, 10, 10], [5, 5, 9, 9]])
    assert "1 train images" in caplog.text
    assert "hold no object and are left out, such as empty" in caplog.text


def test_drawn_images_show_their_class_most(tmp_path):
    root = draw_shapes_loc(None, str(tmp_path), train=30, val=3, test=5, seed=1)
    data = module(VOCLocalization, root, tmp_path)
    train = data.split("train")
    assert (len(train), len(data.split("test")), data.num_classes) == (30, 5, 6)
    counts = train.box_counts()
    assert set(counts) == {1, 2}
    labels = {int(train.target(n)["label"]) for n in range(30)}
    assert len(labels) >= 4
    for number in range(30):
        sample = train.sample(number)
        sides = sample.target["boxes"][:, 2:] - sample.target["boxes"][:, :2]
        assert sides.amax() > 0.25 * min(sample.size)


def test_tiny_imagenets_boxes_are_inclusive_and_flat_ones_are_told(tmp_path, caplog):
    root = tmp_path / "tiny"
    for label, wnid in enumerate(WNIDS):
        lines = []
        for n in range(2):
            write_image(
                root / "train" / wnid / "images" / f"{wnid}_{n}.JPEG", 10 * label + n, (64, 64)
            )
            lines.append(f"{wnid}_{n}.JPEG\t{n}\t10\t63\t58")
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("\n".join(lines))
    for n in range(3):
        write_image(root / "val" / "images" / f"val_{n}.JPEG", 90 + n, (64, 64))
    rows = [f"val_{n}.JPEG\t{WNIDS[n]}\t5\t5\t{5 + 9 * n}\t20" for n in range(3)]
    (root / "val" / "val_annotations.txt").write_text("\n".join(rows))
    data = module(TinyImageNetLoc, root, tmp_path)
    assert of_image(data.split("train"), f"{WNIDS[1]}_1.JPEG") == (1, [[1, 10, 64, 59]])
    assert of_image(data.split("test"), "val_0.JPEG") == (0, [])
    assert of_image(data.split("test"), "val_2.JPEG") == (2, [[5, 5, 24, 21]])
    assert (
        "1 boxes have no area and are left out, such as that of val/images/val_0.JPEG"
        in caplog.text
    )
    (root / "val" / "val_annotations.txt").write_text(f"val_0.JPEG\t{WNIDS[0]}\t5\t5\tx\t20")
    with pytest.raises(UserError, match="line 1: the corners"):
        module(TinyImageNetLoc, root, tmp_path)


def test_real_tiny_imagenet(tmp_path):
    """65 boxes of no width or height (the data's README)."""
    data = module(TinyImageNetLoc, real_data("tiny_imagenet40"), tmp_path)
    boxes = sum(int(data.split(s).box_counts().sum()) for s in ("train", "test"))
    assert boxes == 14_000 - 65


def test_a_photograph_decoded_smaller_keeps_its_size(tmp_path):
    voc = FakeVOC(tmp_path / "voc")
    voc.add("one", [thing("cat", 10, 20, 300, 200)], size=(400, 600))
    voc.lists(train=["one"], test=["one"])
    split = module(VOCLocalization, voc.root, tmp_path).split("train")
    sample = split.sample(0, decode_px=100)
    assert min(sample.image.shape[1:]) < 400
    assert sample.size == (400, 600)
    assert torch.equal(sample.target["boxes"], torch.tensor([[10.0, 20, 300, 200]]))
    assert np.all(split.box_counts() == 1)
