"""The feature extractor: files, resuming, bad images, mistakes."""

from functools import partial

import numpy as np
import pytest
import torch
from fake_cls import write_image
from fake_models import CLASSIFIER as TREE

from detection.config.build import build_model
from detection.disk.checkpoints import save_model
from detection.disk.images import read_image
from detection.errors import UserError
from detection.runs.extract import ExtractOptions, extract, read_options


@pytest.fixture
def trained(tmp_path):
    """A classifier's checkpoint, and a folder of images of several sizes."""
    torch.manual_seed(0)
    detector = build_model(TREE, 5)
    save_model(tmp_path / "model.ckpt", detector, TREE, {}, list("abcde"))
    for number, size in enumerate([(64, 64), (80, 64), (64, 90), (64, 64)]):
        write_image(tmp_path / "images" / f"folder{number % 2}" / f"{number}.jpg", number, size)
    paths = {"ckpt": str(tmp_path), "images": str(tmp_path / "images")}
    return detector.eval(), partial(ExtractOptions, **paths, batch_size=2), tmp_path


def test_vectors_are_those_of_the_network(trained):
    detector, options, folder = trained
    assert extract(options(out=str(folder / "f.npz"), layer="fc6", view="whole")) == []
    with np.load(folder / "f.npz") as found:
        assert found.files == ["folder0/0.jpg", "folder0/2.jpg", "folder1/1.jpg", "folder1/3.jpg"]
        for name in found.files:
            pixels = read_image(folder / "images" / name).transpose(2, 0, 1).copy()
            theirs = detector.activations(torch.from_numpy(pixels)[None], "fc6")[0]
            torch.testing.assert_close(torch.from_numpy(found[name]), theirs)


def test_before_the_relu(trained):
    """As OverFeat's own tool gives the last layer before the classifier."""
    _, options, folder = trained
    extract(options(out=str(folder / "f.npz"), layer="fc7", relu=False))
    extract(options(out=str(folder / "g.npz"), layer="fc7"))
    with np.load(folder / "f.npz") as before, np.load(folder / "g.npz") as behind:
        for name in before.files:
            assert before[name].min() < 0
            np.testing.assert_array_equal(np.maximum(before[name], 0), behind[name])


def test_maps_of_convolutions_or_their_means(trained):
    _, options, folder = trained
    extract(options(out=str(folder / "maps.npz"), layer="conv3", view="whole", dense=True))
    extract(options(out=str(folder / "means.npz"), layer="conv3", view="whole"))
    with np.load(folder / "maps.npz") as maps, np.load(folder / "means.npz") as means:
        shapes = {maps[name].shape for name in maps.files}
        assert len(shapes) == 3
        for name in maps.files:
            np.testing.assert_allclose(maps[name].mean(axis=(1, 2)), means[name], rtol=1e-5)


def test_goes_on_where_it_stopped(trained, monkeypatch):
    """A part that is on disk is not computed again."""
    _, options, folder = trained
    from detection.runs import features as extraction

    whole = extraction.save_part
    calls = []

    def stops(file, *rest):
        calls.append(file.name)
        if len(calls) == 2:
            raise KeyboardInterrupt
        whole(file, *rest)

    monkeypatch.setattr(extraction, "save_part", stops)
    with pytest.raises(KeyboardInterrupt):
        extract(options(out=str(folder / "f.npz")))
    extract(options(out=str(folder / "f.npz")))
    assert calls == ["000000000.npz", "000000002.npz", "000000002.npz"]
    with np.load(folder / "f.npz") as found:
        assert len(found.files) == 4
    assert sorted(p.name for p in folder.iterdir()) == ["f.npz", "images", "model.ckpt"]


@pytest.mark.parametrize("change", [{"batch_size": 4}, {"view": "whole"}, {"side_px": 80}])
def test_parts_of_other_work_are_not_taken(trained, monkeypatch, change):
    _, options, folder = trained
    extract(options(out=str(folder / "wanted.npz"), **change))
    from detection.runs import features as extraction

    join = extraction.join_parts
    monkeypatch.setattr(extraction, "join_parts", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(options(out=str(folder / "f.npz")))
    monkeypatch.setattr(extraction, "join_parts", join)
    extract(options(out=str(folder / "f.npz"), **change))
    with np.load(folder / "f.npz") as found, np.load(folder / "wanted.npz") as wanted:
        assert found.files == wanted.files
        for name in found.files:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_a_pyramid_does_not_slide(trained):
    _, options, folder = trained
    with pytest.raises(UserError, match="fc6 of this network is one vector an image"):
        extract(options(out=str(folder / "f.npz"), layer="fc6", dense=True))


def test_a_bad_image_stops_or_is_listed(trained, caplog):
    _, options, folder = trained
    bad = folder / "images" / "folder0" / "2.jpg"
    bad.write_bytes(bad.read_bytes()[:150])
    with pytest.raises(UserError, match=r"2\.jpg cannot be decoded.*on_error=skip"):
        extract(options(out=str(folder / "f.npz")))
    assert extract(options(out=str(folder / "f.npz"), on_error="skip")) == ["folder0/2.jpg"]
    assert "2.jpg cannot be decoded" in caplog.text
    assert "cannot be read: folder0/2.jpg" in caplog.text
    with np.load(folder / "f.npz") as found:
        assert len(found.files) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["images=a", "out=b.npz"], "ckpt= must be given"),
        (["ckpt=a", "images=a", "out=b.txt"], "must end in .npz"),
        (["ckpt=a", "images=a", "out=b.parquet", "dense=true"], "vectors only"),
        (["ckpt=a", "images=a", "out=b.npz", "on_error=ignore"], "choose stop or skip"),
        (["ckpt=a", "images=a", "out=b.npz", "batch_size=0"], "batch_size= must be at least 1"),
        (["ckpt=a", "images=a", "out=b.npz", "relu=false"], "relu=false is for layer=fc6 or fc7"),
    ],
)
def test_mistakes(words, message):
    with pytest.raises(UserError, match=message):
        read_options(words)


def test_a_folder_named_like_an_image_is_none(trained):
    _, options, folder = trained
    (folder / "images" / "more.jpg").mkdir()
    extract(options(out=str(folder / "f.npz")))
    with np.load(folder / "f.npz") as found:
        assert len(found.files) == 4


def test_unknown_layers_folders_and_devices(trained):
    _, options, folder = trained
    with pytest.raises(UserError, match="device=gpu cannot be used"):
        extract(options(out=str(folder / "f.npz"), device="gpu"))
    with pytest.raises(UserError, match="choose one of conv1, conv2"):
        extract(options(out=str(folder / "f.npz"), layer="fc9"))
    with pytest.raises(UserError, match="there is no such folder"):
        extract(ExtractOptions(str(folder), str(folder / "no"), str(folder / "f.npz")))


def test_parquet(trained):
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    _, options, folder = trained
    extract(options(out=str(folder / "f.parquet"), layer="logits"))
    table = pq.read_table(folder / "f.parquet").to_pydict()
    assert table["path"] == ["folder0/0.jpg", "folder0/2.jpg", "folder1/1.jpg", "folder1/3.jpg"]
    assert len(table["feature"][0]) == 5
