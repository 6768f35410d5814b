"""Data that tests share."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from detection.data.detection import DetectionAnnotations
from detection.data.module import DataModule
from detection.data.shapes.draw import draw_shapes
from detection.data.voc.annotation import VOCAnnotation, VOCObject
from detection.data.voc.folder import VOCFolder
from detection.data.voc.writer import annotation_xml, write_lists
from detection.proposals.selective_search import SelectiveSearch
from detection.proposals.store import open_store

ROOT = Path(__file__).resolve().parents[1]
CONF = ROOT / "conf"
EXPERIMENTS = [
    str(p.relative_to(CONF / "experiment").with_suffix(""))
    for p in sorted((CONF / "experiment").rglob("*.yaml"))
    if not p.stem.startswith("_")
]
GROUPS = ("model", "data", "backbone", "trainer", "logger", "callbacks", "schedule", "paths",
          "debug", "views", "proposals", "sweep")  # fmt: skip
CHOICES = [f"{g}={p.stem}" for g in GROUPS for p in sorted((CONF / g).glob("*.yaml"))
           if not p.stem.startswith("_")]  # fmt: skip
TEST_DATA = Path(os.environ.get("DETECTION_TEST_DATA", ROOT.parent / "shared" / "data"))


def pytest_configure(config: pytest.Config) -> None:
    """Where tests run side by side (pytest-xdist), each process has one core."""
    if hasattr(config, "workerinput"):
        os.environ["OMP_NUM_THREADS"] = "1"  # for the commands that tests start
        torch.set_num_threads(1)


def composed(*overrides: str, name: str = "train") -> DictConfig:
    """A config as the command line composes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, list(overrides))


def real_data(name: str) -> Path:
    """A folder of real data; the test skips where it is missing."""
    path = TEST_DATA / name
    if not path.is_dir():
        pytest.skip(f"{path} is missing: set DETECTION_TEST_DATA to the folder of small data sets")
    return path


def oracle(name: str) -> Path:
    """A folder of expected figures; the test skips where it is missing."""
    path = TEST_DATA.parent / "oracles" / name
    if not path.is_dir():
        pytest.skip(f"{path} is missing: oracles stand beside the folder of DETECTION_TEST_DATA")
    return path


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """One place for the data and caches of all whole runs."""
    return [f"paths.data={tmp_path_factory.mktemp('data')}"]


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn data set: 24 training, 6 val and 10 test images."""
    folder = tmp_path_factory.mktemp("shapes")
    return draw_shapes(None, str(folder), train=24, val=6, test=10)


def find_proposals(data: DataModule, search: SelectiveSearch) -> None:
    """Give every split its proposals, as a detector does."""
    for split, dataset in data.splits.items():
        name = f"{data.name}-{split}"
        dataset.find_proposals(partial(open_store, data.cache, name, search=search, threads=1))


def fit(stage: pl.LightningModule, folder: Path, **options: object) -> None:
    """Train a stage with a bare `Trainer`, without validation."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    once = {"enable_checkpointing": False, "limit_val_batches": 0, "default_root_dir": folder}
    chosen = {"accelerator": "cpu", **quiet, **once, **stage.trainer_options(), **options}
    pl.Trainer(**chosen).fit(stage)


@pytest.fixture(scope="session")
def shapes_data(shapes_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> DataModule:
    """That data set, read, with its proposals."""
    made = DataModule(
        name="shapes",
        task="detection",
        layout=VOCFolder,
        annotations=DetectionAnnotations(),
        root=str(shapes_folder),
        num_workers=2,
        cache=tmp_path_factory.mktemp("cache"),
    )
    made.setup()
    find_proposals(made, SelectiveSearch())
    return made


class FakeVOC:
    """Builds a folder in VOC's layout, image by image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("JPEGImages", "Annotations"):
            (root / name).mkdir(parents=True)

    def add(
        self, image_id: str, objects: list[VOCObject], size: tuple[int, int] = (40, 60)
    ) -> Path:
        """An image of height and width `size`, and its annotation; the path of the XML file."""
        noise = np.random.default_rng(len(image_id)).integers(0, 255, (*size, 3), np.uint8)
        Image.fromarray(noise).save(self.root / "JPEGImages" / f"{image_id}.jpg")
        path = self.root / "Annotations" / f"{image_id}.xml"
        annotation = VOCAnnotation(path, f"{image_id}.jpg", size[1], size[0], objects)
        path.write_bytes(annotation_xml(annotation))
        return path

    def lists(self, **splits: list[str]) -> None:
        """`ImageSets/Main/<split>.txt`."""
        write_lists(self.root, splits)


@pytest.fixture
def fake_voc(tmp_path: Path) -> FakeVOC:
    """An empty folder in VOC's layout."""
    return FakeVOC(tmp_path / "voc")
