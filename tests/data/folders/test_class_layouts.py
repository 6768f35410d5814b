"""Layouts of classification data, and their index on disk."""

import io

import numpy as np
import pytest
from conftest import real_data
from fake_cls import WNIDS, WORDS, class_folders, kaggle, write_image
from PIL import Image

from detection.backbones.overfeat_weights import released_wnids
from detection.data.folders.caltech101 import Caltech101
from detection.data.folders.class_folders import ClassFolders
from detection.data.folders.tiny_imagenet import TinyImageNet
from detection.data.ilsvrc.classification import ilsvrc_cls, names_of
from detection.data.image_index import open_index
from detection.data.voc.annotation import VOCObject
from detection.data.voc.classification import VOCClassification
from detection.disk.images import read_image
from detection.errors import UserError


@pytest.mark.parametrize("solution", [True, False])
def test_kaggles_layout(tmp_path, solution):
    """Classes of val from the solution file, or from its boxes."""
    listing = ilsvrc_cls(kaggle(tmp_path, solution=solution))
    assert listing.class_names == list(WORDS)
    train, test = list(listing.entries("train")), list(listing.entries("test"))
    assert [label for _, label in train] == [0] * 4 + [1] * 4 + [2] * 4
    assert [label for _, label in test] == [0, 1, 2, 0, 1, 2]
    for name, _ in train + test:
        assert (tmp_path / name).is_file()


def test_torchvisions_layout_is_imagefolders(tmp_path):
    from torchvision.datasets import ImageFolder

    class_folders(tmp_path)
    listing = ilsvrc_cls(tmp_path)
    theirs = [(path, label) for path, label in ImageFolder(tmp_path / "val").samples]
    ours = [(str(tmp_path / name), label) for name, label in listing.entries("test")]
    assert ours == theirs


def test_wrong_layouts_say_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match=r"looked for ILSVRC/Data/CLS-LOC.*found pictures"):
        ilsvrc_cls(tmp_path)
    root = kaggle(tmp_path / "k")
    for file in (root / "ILSVRC/Data/CLS-LOC/train" / WNIDS[1]).iterdir():
        file.unlink()
    (root / "ILSVRC/Data/CLS-LOC/train" / WNIDS[1]).rmdir()
    with pytest.raises(UserError, match=r"1 of 3 class folders are missing.*n01443537"):
        ilsvrc_cls(root)
    folders = class_folders(tmp_path / "f")
    for file in (folders / "val" / WNIDS[2]).iterdir():
        file.unlink()
    with pytest.raises(UserError, match="holds no image"):
        list(ClassFolders(folders).entries("test"))


def test_the_index_is_kept_until_the_images_change(tmp_path):
    listing = ClassFolders(class_folders(tmp_path / "data"))
    first = open_index(tmp_path / "cache", "some", listing, "train")
    assert isinstance(first.names.base, np.memmap) or isinstance(first.names, np.memmap)
    assert len(first) == 12
    assert [first.name(row) for row in range(12)] == [name for name, _ in listing.entries("train")]
    assert first.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    before = sorted((tmp_path / "cache").rglob("*.npy"))
    open_index(tmp_path / "cache", "some", listing, "train")
    assert sorted((tmp_path / "cache").rglob("*.npy")) == before
    write_image(tmp_path / "data/train" / WNIDS[0] / "another.JPEG", 7)
    again = open_index(tmp_path / "cache", "some", ClassFolders(tmp_path / "data"), "train")
    assert len(again) == 13
    assert again.path(0).name == "another.JPEG"


def test_tiny_imagenet():
    root = real_data("tiny_imagenet40")
    listing = TinyImageNet(root)
    assert len(listing.class_names) == 40
    train, test = list(listing.entries("train")), list(listing.entries("test"))
    assert (len(train), len(test)) == (12_000, 2_000)
    assert np.bincount([label for _, label in test]).tolist() == [50] * 40
    assert all((root / name).is_file() for name, _ in train[::500] + test[::100])


def test_caltech101_splits_each_class(tmp_path):
    root = tmp_path / "101_ObjectCategories"
    for name, count in (("accordion", 40), ("BACKGROUND_Google", 95)):
        for n in range(count):
            write_image(root / name / f"image_{n:04d}.jpg", n, (16, 16))
    options = {"train": 30, "test": 50}
    listing = Caltech101(tmp_path, **options, seed=0)
    train, test = dict(listing.entries("train")), dict(listing.entries("test"))
    assert list(train.values()) == [0] * 30 + [1] * 30
    assert list(test.values()) == [0] * 50 + [1] * 10  # all that are left of the second
    assert not set(train) & set(test)
    assert train == dict(Caltech101(tmp_path, **options, seed=0).entries("train"))
    assert train != dict(Caltech101(tmp_path, **options, seed=1).entries("train"))
    assert train == dict(Caltech101(tmp_path, **options, seed=[0]).entries("train"))
    with pytest.raises(UserError, match=r"seed=\[N\]: a checkpoint is tested on one split"):
        Caltech101(tmp_path, **options, seed=[0, 1])
    with pytest.raises(UserError, match="holds 40 images: 40 to train on"):
        list(Caltech101(tmp_path, train=40, test=5, seed=0).entries("train"))


def test_voc_images_of_difficult_objects_alone_are_not_counted(fake_voc):
    """As in ImageSets/Main/<class>_<split>.txt: 1, 0 and -1."""
    box = (1.0, 1.0, 20.0, 20.0)
    hard = VOCObject("cat", box, difficult=True)
    fake_voc.add("a", [VOCObject("cat", box), hard])
    fake_voc.add("b", [hard, VOCObject("dog", box)])
    fake_voc.lists(trainval=["a", "b"], test=["b"])
    names = ["cat", "cow", "dog"]
    listing = VOCClassification(fake_voc.root, classes=names, train="trainval", test="test")
    assert list(listing.entries("train")) == [
        ("JPEGImages/a.jpg", [1, -1, -1]),
        ("JPEGImages/b.jpg", [0, -1, 1]),
    ]


def test_all_classes_of_ilsvrc_have_their_names_in_both_layouts():
    """Two cranes and two maillots, told apart."""
    wnids = sorted(released_wnids())
    names = names_of(wnids, {})
    assert names == names_of(wnids, dict.fromkeys(wnids, "crane"))
    assert len(set(names)) == 1000
    assert names[:2] == ["tench", "goldfish"]
    people = [f"person_{n:04d}" for n in range(1000)]
    assert names_of(people, {}) == people  # a thousand folders of something else


def test_what_is_not_read_is_told(tmp_path, caplog):
    class_folders(tmp_path)
    (tmp_path / "train" / WNIDS[0] / "notes.txt").write_text("")
    listing = ilsvrc_cls(tmp_path)
    assert len(list(listing.entries("train"))) == 12
    assert "1 files or folders are no images" in caplog.text
    assert "notes.txt: left out" in caplog.text
    (tmp_path / "val" / "n99999999").mkdir()
    with pytest.raises(UserError, match=r"n99999999 is of a class that .*train does not have"):
        ilsvrc_cls(tmp_path)


def test_lists_that_are_damaged(tmp_path):
    """A blank line is none; an answer that is not there is told with its line."""
    root = kaggle(tmp_path)
    train = root / "ILSVRC/ImageSets/CLS-LOC/train_cls.txt"
    train.write_text("\n" + train.read_text() + "\n")
    assert len(list(ilsvrc_cls(root).entries("train"))) == 12
    solution = root / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("ILSVRC2012_val_00000002,n", "x,,n"))
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv line 3: an ImageId"):
        list(ilsvrc_cls(root).entries("test"))
    solution.write_text("image,answer\na,b\n")
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv line 2: an ImageId"):
        list(ilsvrc_cls(root).entries("test"))


def test_an_index_that_another_process_wrote_first_is_taken(tmp_path, monkeypatch):
    listing = ilsvrc_cls(class_folders(tmp_path / "data"))
    whole, seen = listing.entries, []

    def entries(split):
        if not seen:
            seen.append(split)
            open_index(tmp_path, "x", listing, split)  # the other process
        yield from whole(split)

    monkeypatch.setattr(listing, "entries", entries)
    index = open_index(tmp_path, "x", listing, "train")
    assert len(index) == 12
    assert [p.name for p in (tmp_path / "indices").iterdir()] == [index.kept_in.name]


def test_an_index_reads_utf8_names(tmp_path):
    root = class_folders(tmp_path / "data", each=1)
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "JPEG")
    (root / "train" / WNIDS[1] / "é中.jpeg").write_bytes(stream.getvalue())
    index = open_index(tmp_path / "cache", "some", ClassFolders(root), "train")
    assert read_image(index.path(2)).shape == (9, 9, 3)
