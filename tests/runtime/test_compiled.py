"""The cache of compiled code: missing, read-only, damaged; two that start at once."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
from conftest import ROOT

from detection.runtime import compiled

SEARCH = """
import numpy as np
from detection.proposals.selective_search import SelectiveSearch
image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)
print(SelectiveSearch(min_side_px=3)(image).sum())
"""


def search(cache):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", SEARCH], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_does_not_pay_for_the_compiler():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "train.py", "--help"], capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert "hydra" in done.stderr
    assert "numba" not in done.stderr
    code = "import detection.regions.detector, sys; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_cache_belongs_to_its_sources(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    first = compiled.cache_folder()
    assert first.parent == tmp_path
    monkeypatch.setattr(compiled, "KERNELS", ("proposals/grouping.py",))
    assert compiled.cache_folder() != first


def test_a_folder_that_cannot_be_written_is_no_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))
    assert compiled.cache_folder() is None


def test_no_home_is_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(compiled.Path, "home", no_home)
    assert compiled.cache_folder() is None


@pytest.mark.parametrize("error", [MemoryError(), OSError(28, "No space left on device")])
def test_no_room_is_no_damage(tmp_path, monkeypatch, error):
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    (tmp_path / "code").mkdir()

    def use_all():
        raise error

    with pytest.raises(type(error)):
        compiled.compile_once(use_all, "kernels", 1)
    assert (tmp_path / "code").exists()


def test_without_a_cache_it_is_compiled_and_said(monkeypatch, caplog):
    caplog.set_level("INFO", "detection")
    used = []
    monkeypatch.setattr(compiled, "FOLDER", None)
    compiled.compile_once(lambda: used.append(1), "kernels", 1)
    assert used == [1]
    assert "its cache cannot be written" in caplog.text


def test_a_damaged_cache_is_made_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    entry = tmp_path / "of_a_folder" / "kernel.nbc"
    entry.parent.mkdir()
    entry.write_bytes(b"damaged")

    def use_all():
        if entry.exists():
            raise EOFError("Ran out of input")

    compiled.compile_once(use_all, "kernels", 1)
    assert not entry.exists()
    assert "cannot be used (EOFError: Ran out of input): compiling it again" in caplog.text


def test_one_compiles_and_the_others_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    at_once, most = [], []

    def use_all():
        at_once.append(1)
        most.append(len(at_once))
        threading.Event().wait(0.02)
        at_once.pop()

    threads = [
        threading.Thread(target=compiled.compile_once, args=(use_all, "kernels", 1))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 5


@pytest.mark.slow
def test_first_starts_at_once_damage_and_a_read_only_place(tmp_path):
    """The compiler itself: about a minute."""
    cache = tmp_path / "cache"
    found = []
    threads = [threading.Thread(target=lambda: found.append(search(cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    for file in cache.rglob("*.nb[ci]"):
        file.write_bytes(file.read_bytes()[:20])
    assert search(cache) == found[0]
    shutil.rmtree(cache)
    cache.write_text("no folder")
    assert search(cache) == found[0]
