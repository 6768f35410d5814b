"""Layouts, the index on disk, and what a classifier is fed with."""

import io

import numpy as np
import pytest
import torch
from conftest import real_data
from fake_cls import WNIDS, WORDS, class_folders, kaggle, write_image
from hydra import compose, initialize_config_dir
from PIL import Image
from test_config import CONF

from detection.build import build
from detection.data.augment import CentreOrCornerCrop, PCALighting, principal_components
from detection.data.caltech101 import Caltech101
from detection.data.class_folders import ClassFolders
from detection.data.classification_data import ShuffledBatches
from detection.data.ilsvrc_cls import ilsvrc_cls, names_of
from detection.data.image_index import open_index
from detection.data.tiny_imagenet import TinyImageNet
from detection.data.voc_annotation import VOCObject
from detection.data.voc_cls import VOCClassification
from detection.errors import UserError
from detection.images import read_image, read_reduced
from detection.run_config import plain


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


def data(tmp_path, root, *options):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(
            "train",
            ["model=sppnet_classifier", "data=ilsvrc_cls", f"data.root={root}",
             f"paths.cache={tmp_path / 'cache'}", "data.num_workers=0", "backbone.input_px=48",
             "data.side_px=64", *options],
        )  # fmt: skip
    made = build(plain(cfg)["data"])
    made.read()
    return made


def test_batches_are_a_function_of_the_seed(tmp_path):
    made = data(tmp_path, kaggle(tmp_path / "data"), "data.crops_per_image=2")
    one, two, other = (list(made.train_loader(6, seed)) for seed in (5, 5, 6))
    assert [images.shape for images, _ in one] == [(6, 3, 48, 48)] * 4
    for (a, labels), (b, same) in zip(one, two, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(labels, same)
        assert labels[0::2].equal(labels[1::2])  # both squares of an image
    assert not torch.equal(one[0][0], other[0][0])
    seen = torch.cat([labels[::2] for _, labels in one])
    assert sorted(seen.tolist()) == sorted([0, 1, 2] * 4)


def test_processes_share_each_batch_out():
    """Step for step two processes see what one sees with batches twice as large."""
    one = list(ShuffledBatches(23, 6, 3, (0, 1)))
    first, second = (list(ShuffledBatches(23, 3, 3, (rank, 2))) for rank in (0, 1))
    assert [a + b for a, b in zip(first, second, strict=True)] == one
    assert len(one) == len(first) == 3


def test_few_images_are_shared_out_too():
    """No process has an empty batch."""
    for rank in (0, 1):
        assert [len(batch) for batch in ShuffledBatches(8, 32, 3, (rank, 2))] == [4]
    with pytest.raises(UserError, match="1 training images do not go round 2 processes"):
        ShuffledBatches(1, 4, 3, (0, 2))


def test_overfeats_ten_views_of_an_image(tmp_path):
    """OverFeat, 3.1: five crops and their flips; a batch is the nearest number of whole images."""
    root = kaggle(tmp_path / "data")
    made = data(tmp_path, root, "model=overfeat", "model.crop.height=48", "model.crop.width=48")
    images, labels = next(iter(made.train_loader(28, 0)))
    assert images.shape == (30, 3, 48, 48)
    assert torch.equal(images[:5].flip(-1), images[5:10])
    assert len(labels.view(3, 10).unique(dim=1)[0]) == 1
    assert not torch.equal(images[0], images[1])


def test_all_classes_of_ilsvrc_have_their_names_in_both_layouts():
    """Two cranes and two maillots, told apart."""
    wnids = [f"n{n:08d}" for n in range(1000)]
    names = names_of(wnids, {})
    assert names == names_of(wnids, dict.fromkeys(wnids, "crane"))
    assert len(set(names)) == 1000
    assert names[:2] == ["tench", "goldfish"]


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
    assert [p.name for p in (tmp_path / "indices").iterdir()] == [index.folder.name]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16", "RGBA"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    grey = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("L" if mode == "P" else "RGB").convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    image.save(path)
    for pixels in (read_image(path), read_reduced(path, 30)):
        assert pixels.shape == (40, 50, 3)
        assert abs(pixels[:, :, 0].astype(int) - grey).max() <= 8


def test_large_jpegs_are_decoded_small_and_exif_is_left_alone(tmp_path):
    write_image(tmp_path / "a.jpg", 0, (400, 640))
    assert read_reduced(tmp_path / "a.jpg", 100).shape == (100, 160, 3)
    assert read_reduced(tmp_path / "a.jpg", 150).shape == (200, 320, 3)
    assert read_reduced(tmp_path / "a.jpg", 256).shape == (400, 640, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    Image.open(tmp_path / "a.jpg").save(tmp_path / "b.jpg", exif=exif)
    for read in (read_image(tmp_path / "b.jpg"), read_reduced(tmp_path / "b.jpg", 256)):
        assert read.shape == (400, 640, 3)


def test_both_readers_give_the_same_pixels(tmp_path):
    generator = np.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120))
    for options in ({"quality": 90}, {"quality": 75, "progressive": True}):
        colours.save(tmp_path / "a.jpg", **options)
        whole, fast = read_image(tmp_path / "a.jpg"), read_reduced(tmp_path / "a.jpg", 100)
        assert abs(whole.astype(int) - fast).max() <= 2


def test_truncated_images_are_never_filled_up(tmp_path):
    write_image(tmp_path / "a.jpg", 0, (100, 120))
    whole = (tmp_path / "a.jpg").read_bytes()
    for kept in (len(whole) - 5, len(whole) // 2, 100, 3):
        (tmp_path / "a.jpg").write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
            read_reduced(tmp_path / "a.jpg", 50)
    with pytest.raises(UserError, match=r"b\.jpg is missing"):
        read_reduced(tmp_path / "b.jpg", 50)


def test_a_corrupt_image_is_named(tmp_path):
    root = kaggle(tmp_path / "data")
    file = next((root / "ILSVRC/Data/CLS-LOC/train" / WNIDS[0]).iterdir())
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{file.name} cannot be decoded"):
        list(data(tmp_path, root).train_loader(12, 0))


def test_a_crop_larger_than_the_image_says_what_to_change(tmp_path):
    made = data(tmp_path, kaggle(tmp_path / "data"), "data.side_px=40")
    with pytest.raises(UserError, match=r"data\.side_px must be at least backbone\.input_px"):
        list(made.train_loader(12, 0))


def test_crops_are_of_the_five_places():
    image = np.arange(100 * 120, dtype=np.uint32).reshape(100, 120, 1).repeat(3, axis=2)
    image = (image % 251).astype(np.uint8)
    crop = CentreOrCornerCrop(height=60, width=60)
    crop.set_random_seed(0)
    wanted = {image[y : y + 60, x : x + 60].tobytes()
              for y, x in ((20, 30), (0, 0), (0, 60), (40, 0), (40, 60))}  # fmt: skip
    assert {crop(image=image)["image"].tobytes() for _ in range(60)} == wanted


def test_principal_colours_are_numpys(tmp_path):
    """Against the eigenvectors of all pixels' covariance; and a run keeps them."""
    root = class_folders(tmp_path / "data")
    index = open_index(tmp_path / "cache", "some", ClassFolders(root), "train")
    pixels = np.concatenate([read_reduced(index.path(row), 64).reshape(-1, 3) for row in range(12)])
    covariance = np.cov(pixels.T / 255.0, bias=True)
    found = principal_components(index, 100) / 255
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.eigvalsh(covariance))
    np.testing.assert_allclose(found @ covariance, found * np.linalg.norm(found, axis=1)[:, None])
    lighting = PCALighting(std=0.1, images=100)
    lighting.fit(index)
    assert (index.folder / "colours-100.json").is_file()
    lighting.set_random_seed(1)
    grey = np.full((4, 4, 3), 100, np.uint8)
    moved = np.stack([lighting(image=grey)["image"][0, 0] for _ in range(300)]).astype(float)
    scatter = np.cov(moved.T, bias=True)
    expected = 0.01 * (lighting.components.T @ lighting.components)
    assert np.trace(scatter) == pytest.approx(np.trace(expected) + 3 / 12, rel=0.3)


def test_an_index_reads_utf8_names(tmp_path):
    root = class_folders(tmp_path / "data", each=1)
    stream = io.BytesIO()
    Image.new("RGB", (9, 9)).save(stream, "JPEG")
    (root / "train" / WNIDS[1] / "é中.jpeg").write_bytes(stream.getvalue())
    index = open_index(tmp_path / "cache", "some", ClassFolders(root), "train")
    assert read_image(index.path(2)).shape == (9, 9, 3)
