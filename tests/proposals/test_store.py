"""The store of proposals: whole, resumable, found again."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

import detection.disk.arrays as module
from detection.disk.arrays import RaggedArray
from detection.errors import UserError
from detection.proposals.store import open_store


@dataclass(frozen=True)
class OneBoxAPixelOfWidth:
    """Stands for a search: as many boxes as the image is wide."""

    log: str = ""
    is_network: ClassVar[bool] = False

    def identity(self):
        return repr(self)

    def __call__(self, image):
        if self.log:
            with open(self.log, "a") as file:
                file.write("x")
        return np.tile(np.float32([0, 0, 1, 1]), (image.shape[1], 1))


@pytest.fixture
def images(tmp_path):
    paths = []
    for n in range(1, 40):
        paths.append(tmp_path / f"{n:02d}.png")
        Image.new("RGB", (n, 5)).save(paths[-1])
    return paths


def test_boxes_of_every_image_in_order(images, tmp_path):
    store = open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 2)
    assert [len(store[i]) for i in range(len(store))] == list(range(1, 40))
    assert not list(store.folder.glob("part_*"))


def test_second_opening_computes_nothing(images, tmp_path):
    search = OneBoxAPixelOfWidth(str(tmp_path / "log"))
    for _ in range(2):
        open_store(tmp_path / "cache", "a", images, search, 1)
    assert len((tmp_path / "log").read_text()) == len(images)


def test_goes_on_where_it_was_killed(images, tmp_path, monkeypatch):
    search = OneBoxAPixelOfWidth(str(tmp_path / "log"))

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "join", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store(tmp_path / "cache", "a", images, search, 1)
    next(tmp_path.glob("cache/proposals/*/part_0000016.npz")).unlink()
    store = open_store(tmp_path / "cache", "a", images, search, 1)
    assert len(store) == 39
    assert len((tmp_path / "log").read_text()) == 39 + module.ITEMS_A_PART


def test_other_settings_or_images_give_another_store(images, tmp_path):
    names = set()
    for search, paths in (
        (OneBoxAPixelOfWidth(), images),
        (OneBoxAPixelOfWidth(str(tmp_path / "log")), images),
        (OneBoxAPixelOfWidth(), images[:5]),
    ):
        names.add(open_store(tmp_path / "cache", "a", paths, search, 1).folder)
    Image.new("RGB", (99, 5)).save(images[0])
    names.add(open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1).folder)
    assert len(names) == 4


def test_full_disk_leaves_nothing_half_written(images, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_rows", full)
        with pytest.raises(UserError, match=r"rows\.bin could not be written: No space left"):
            open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)
    folder = next(Path(tmp_path / "cache" / "proposals").iterdir())
    assert not (folder / "about.json").exists()
    assert len(list(folder.glob("part_*.npz"))) == 3  # what was finished is kept
    assert not list(folder.glob(".*.part"))
    assert len(open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)) == 39


def test_bad_image_is_named(images, tmp_path):
    images[3].write_bytes(b"no image")
    with pytest.raises(UserError, match=r"04\.png cannot be decoded"):
        open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)


def test_damaged_store_is_told(images, tmp_path):
    store = open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)
    np.save(store.folder / "offsets.npy", np.zeros(3, np.int64))
    with pytest.raises(UserError, match="is damaged: delete it"):
        RaggedArray(store.folder)


def test_who_waits_for_another_process_says_so(images, tmp_path, caplog):
    caplog.set_level("INFO", "detection")
    store = open_store(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)
    (store.folder / "about.json").unlink()
    waiting = threading.Thread(
        target=open_store, args=(tmp_path / "cache", "a", images, OneBoxAPixelOfWidth(), 1)
    )
    with module.locked(store.folder / "lock"):
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        assert f"another process makes {store.name}: waiting for it" in caplog.text
    waiting.join(60)
    assert (store.folder / "about.json").exists()
