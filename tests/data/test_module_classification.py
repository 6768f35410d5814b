"""What a classifier is fed with."""

import numpy as np
import pytest
import torch
from conftest import composed
from fake_cls import WNIDS, class_folders, kaggle

from detection.config.build import build
from detection.config.plain import plain
from detection.data.classification import ClassificationSplit
from detection.data.examples import ShuffledBatches
from detection.data.folders.class_folders import ClassFolders
from detection.data.image_index import open_index
from detection.data.transforms import CentreOrCornerCrop, PCALighting, principal_components
from detection.disk.images import read_reduced
from detection.errors import UserError
from detection.runs.train import build_data

EXAMPLES = "model.stages.train.examples"


def made(tmp_path, root, *options):
    """The crops that a stage of the config trains on."""
    words = ["model=sppnet_classifier", "data=ilsvrc_cls", f"data.root={root}",
             f"paths.cache={tmp_path / 'cache'}", "data.num_workers=0", "data.val_images=0",
             "model.side_px=64"]  # fmt: skip
    config = plain(composed(*words, *options))
    data, _ = build_data(config["data"])
    data.setup("fit")
    examples = build(config["model"]["stages"]["train"]["examples"])
    return examples.of(data.splits["train"], config["model"]["side_px"], 48)


def test_batches_are_a_function_of_the_seed(tmp_path):
    crops = made(tmp_path, kaggle(tmp_path / "data"), f"{EXAMPLES}.crops_per_image=2")
    one, two, other = (list(crops.loader(6, seed, 0)) for seed in (5, 5, 6))
    assert [images.shape for images, _ in one] == [(6, 3, 48, 48)] * 4
    for (a, labels), (b, same) in zip(one, two, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(labels, same)
        assert labels[0::2].equal(labels[1::2])  # both crops of an image
    assert not torch.equal(one[0][0], other[0][0])
    seen = torch.cat([labels[::2] for _, labels in one])
    assert sorted(seen.tolist()) == sorted([0, 1, 2] * 4)


def test_processes_share_each_batch_out():
    """Step for step two processes see what one sees with batches twice as large."""
    one = list(ShuffledBatches(23, 6, 3, (0, 1)))
    first, second = (list(ShuffledBatches(23, 3, 3, (rank, 2))) for rank in (0, 1))
    assert [a + b for a, b in zip(first, second, strict=True)] == one
    assert len(one) == len(first) == 3


def test_the_parts_of_an_epoch_are_the_whole():
    """In their order, on two processes too; none is empty."""
    for rank in range(2):
        whole = list(ShuffledBatches(23, 3, 3, (rank, 2)))
        parts = [list(ShuffledBatches(23, 3, 3, (rank, 2), (n, 2))) for n in range(2)]
        assert parts[0] + parts[1] == whole
        assert all(parts)
    with pytest.raises(UserError, match=r"of 3 batches has no 4 parts: raise .*crops_per_ch"):
        ShuffledBatches(23, 3, 3, (0, 2), (0, 4))


def test_few_images_are_shared_out_too():
    """No process has an empty batch."""
    for rank in (0, 1):
        assert [len(batch) for batch in ShuffledBatches(8, 32, 3, (rank, 2))] == [4]
    with pytest.raises(UserError, match="1 training images do not go round 2 processes"):
        ShuffledBatches(1, 4, 3, (0, 2))


def test_overfeats_ten_views_of_an_image(tmp_path):
    """OverFeat, 3.1: five crops and their flips; a batch is the nearest number of whole images."""
    root = kaggle(tmp_path / "data")
    crops = made(tmp_path, root, "model=overfeat")
    images, labels = next(iter(crops.loader(28, 0, 0)))
    assert images.shape == (30, 3, 48, 48)
    assert torch.equal(images[:5].flip(-1), images[5:10])
    assert len(labels.view(3, 10).unique(dim=1)[0]) == 1
    assert not torch.equal(images[0], images[1])


def test_a_corrupt_image_is_named(tmp_path):
    root = kaggle(tmp_path / "data")
    file = next((root / "ILSVRC/Data/CLS-LOC/train" / WNIDS[0]).iterdir())
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(UserError, match=rf"{file.name} cannot be decoded"):
        list(made(tmp_path, root).loader(12, 0, 0))


def test_a_crop_larger_than_the_image_says_what_to_change(tmp_path):
    crops = made(tmp_path, kaggle(tmp_path / "data"), "model.side_px=40")
    with pytest.raises(UserError, match=r"model\.side_px must be at least backbone\.input_px"):
        list(crops.loader(12, 0, 0))


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
    split = ClassificationSplit(index)
    pixels = np.concatenate([read_reduced(index.path(row), 64).reshape(-1, 3) for row in range(12)])
    covariance = np.cov(pixels.T / 255.0, bias=True)
    found = principal_components(split, 100) / 255
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.eigvalsh(covariance))
    np.testing.assert_allclose(found @ covariance, found * np.linalg.norm(found, axis=1)[:, None])
    lighting = PCALighting(std=0.1, images=100)
    lighting.learn_from(split)
    assert (index.kept_in / "colours-100-all.json").is_file()
    part = PCALighting(std=0.1, images=100)  # other images have other colours
    part.learn_from(ClassificationSplit(index, np.array([0, 1])))
    assert not np.allclose(part.components, lighting.components)
    lighting.set_random_seed(1)
    grey = np.full((4, 4, 3), 100, np.uint8)
    moved = np.stack([lighting(image=grey)["image"][0, 0] for _ in range(300)]).astype(float)
    scatter = np.cov(moved.T, bias=True)
    expected = 0.01 * (lighting.components.T @ lighting.components)
    assert np.trace(scatter) == pytest.approx(np.trace(expected) + 3 / 12, rel=0.3)


def test_validation_images_are_held_aside_from_train(tmp_path):
    """Never test images: a tenth of train, evenly over the classes, where there is no list."""
    root = kaggle(tmp_path / "data", train=20)
    words = ["model=sppnet_classifier", "data=ilsvrc_cls", f"data.root={root}",
             f"paths.cache={tmp_path / 'cache'}"]  # fmt: skip
    data, _ = build_data(plain(composed(*words))["data"])
    data.setup()
    names = {split: {images.image_id(i) for i in range(len(images))}
             for split, images in data.splits.items()}  # fmt: skip
    assert [len(names[split]) for split in ("train", "val", "test")] == [54, 6, 6]
    assert not names["train"] & names["val"]
    assert all("/train/" in name for name in names["val"])
    labels = [int(data.splits["val"].target(i)["label"]) for i in range(6)]
    assert sorted(labels) == [0, 0, 1, 1, 2, 2]


def test_a_val_folder_beside_test_is_validated_on(tmp_path):
    root = class_folders(tmp_path / "data", test="test")
    class_folders(root, train="val", test="test2")
    words = ["model=sppnet_classifier", "data=image_folder", f"data.root={root}",
             f"paths.cache={tmp_path / 'cache'}"]  # fmt: skip
    data, _ = build_data(plain(composed(*words))["data"])
    data.setup()
    assert [len(data.splits[split]) for split in ("train", "val", "test")] == [12, 12, 12]
    assert data.splits["val"].image_id(0).startswith("val/")
