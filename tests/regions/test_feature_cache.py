"""Features on disk: what is read is what was computed, and nothing else is ever read."""

import shutil

import numpy as np
import pytest
import torch

from detection.backbones.head import FullyConnected, Head
from detection.data.detection import DetectionSplit
from detection.data.voc.annotation import VOCObject
from detection.data.voc.folder import VOCFolder
from detection.disk import arrays
from detection.errors import UserError
from detection.regions.feature_cache import (
    FeatureCache,
    find_features,
    identity,
    open_features,
)
from detection.regions.region_reader import RegionReader
from detection.regions.row_files import RowFiles

LAYERS = {"pool5": 8, "fc6": 5, "fc7": 4}


class Features(torch.nn.Module):
    """A box and the image's mean → eight numbers; counts how often it is asked."""

    out_features = 8

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(0, 1, 32).view(4, 8))
        self.asked = 0
        self.warp = "first"

    def settings(self):
        return self.warp

    def prepare(self, image):
        return [image.float().mean()]

    def pool(self, prepared, boxes, size):
        self.asked += 1
        return (boxes @ self.weight / 50 + prepared[0] / 255).relu()


class Detector(torch.nn.Module):
    """Two fully connected layers on those."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = self.regions = Features()
        fc = FullyConnected(torch.nn.Linear(8, 5), torch.nn.Linear(5, 4), False)
        self.head = Head(8, fc, {})
        self.precision = "float32"

    def autocast(self, device):
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


@pytest.fixture
def dataset(fake_voc):
    """Three images; the second has no object, the third no proposal."""
    fake_voc.add("a", [VOCObject("cat", (0, 0, 20, 30)), VOCObject("cat", (5, 5, 30, 40))])
    fake_voc.add("b", [])
    fake_voc.add("c", [VOCObject("cat", (10, 10, 30, 20))])
    made = DetectionSplit(VOCFolder(fake_voc.root), ["a", "b", "c"], ["cat"])
    boxes = [torch.rand(n, 4) + torch.tensor([0, 0, 20, 20]) for n in (4, 5, 0)]
    made.proposals = boxes.__getitem__
    return made


def opened(tmp_path, dataset, detector, layer="pool5", dtype="float32"):
    cache = FeatureCache(layer, dtype)
    return open_features(cache, tmp_path / "cache", "toy", detector, dataset, torch.device("cpu"))


@pytest.mark.parametrize("stored", ["pool5", "fc6", "fc7"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("wanted", ["pool5", "fc6", "fc7"])
def test_any_layer_from_any_store(tmp_path, dataset, stored, dtype, wanted):
    """Earlier layers than the stored one are computed from the images."""
    detector = Detector()
    store = opened(tmp_path, dataset, detector, stored, dtype)
    cpu = torch.device("cpu")
    reader = RegionReader(detector, dataset, cpu, store=store)
    live = RegionReader(detector, dataset, cpu)
    tolerance = 1e-6 if dtype == "float32" else 5e-3
    for got, want in zip(reader.stream([2, 0, 1]), live.stream([2, 0, 1]), strict=True):
        assert torch.equal(got.boxes, want.boxes)
        expected = live.features(want, wanted)
        found = reader.features(got, wanted)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
        some = torch.tensor([0])
        torch.testing.assert_close(reader.features(got, wanted, some), found[some])


@pytest.mark.parametrize("stored", [None, "pool5"])
def test_features_are_those_of_inference_whatever_the_trainers_precision(tmp_path, dataset, stored):
    detector, cpu = Detector(), torch.device("cpu")
    store = opened(tmp_path, dataset, detector, stored) if stored else None
    features, wanted = detector.features, {}
    for image in RegionReader(detector, dataset, cpu, store=store).stream([0, 1]):
        prepared = features.prepare(dataset[image.index].image)
        wanted[image.index] = detector.head.layers(
            features.pool(prepared, image.boxes, None), "fc7"
        )
    with torch.autocast("cpu", torch.bfloat16):
        reader = RegionReader(detector, dataset, cpu, store=store)
        for image in reader.stream([0, 1]):
            assert torch.equal(reader.features(image, "fc7"), wanted[image.index])
    detector.precision = "bfloat16"
    reader = RegionReader(detector, dataset, cpu)
    image = next(reader.stream([0]))
    assert not torch.equal(reader.features(image, "fc7"), wanted[0])


def test_mean_norm_of_some_boxes_in_some_images(dataset):
    reader = RegionReader(Detector(), dataset, torch.device("cpu"))
    norms = [reader.features(i, "fc6").norm(dim=1) for i in reader.stream([0, 1, 2])]
    assert reader.mean_norm("fc6", 200, 200, 0) == pytest.approx(float(torch.cat(norms).mean()))
    one = reader.mean_norm("fc6", 1, 1, 0)
    assert min(abs(one - float(n)) for n in torch.cat(norms)) < 1e-6


def test_computed_once_and_goes_on_where_it_stopped(tmp_path, dataset):
    detector = Detector()
    store = opened(tmp_path, dataset, detector)
    assert detector.features.asked == 3
    store.array.done[1] = 0  # as if the process had died before it finished the second image
    rows = store.array.rows
    rows[:] = np.where(np.arange(len(rows))[:, None] < 6, rows, 0)
    opened(tmp_path, dataset, detector)
    assert detector.features.asked == 4
    opened(tmp_path, dataset, detector)
    assert detector.features.asked == 4


def test_found_only_when_it_is_whole(tmp_path, dataset):
    detector, cache = Detector(), FeatureCache("pool5", "float32")
    place = (cache, tmp_path / "cache", "toy", detector, dataset)
    assert find_features(*place) is None
    store = opened(tmp_path, dataset, detector)
    assert find_features(*place).array.folder == store.array.folder
    store.array.done[2] = 0
    assert find_features(*place) is None
    assert detector.features.asked == 3


def test_everything_that_matters_is_in_its_name(tmp_path, dataset):
    detector = Detector()
    seen = set()

    def is_new(layer="pool5", dtype="float32"):
        about = tuple(identity(FeatureCache(layer, dtype), detector, dataset).items())
        new = about not in seen
        seen.add(about)
        return new

    assert is_new()
    assert not is_new()
    assert is_new(layer="fc6")
    assert is_new(dtype="float16")
    detector.head.fc6.bias.data[0] += 1
    assert not is_new()  # pool5 does not depend on fc6 ...
    assert is_new(layer="fc6")  # ... but fc6 does
    detector.features.weight.data[0, 0] += 1e-3
    assert is_new()
    detector.features.warp = "second"
    assert is_new()
    detector.precision = "bfloat16"
    assert is_new()
    dataset.gt(0).boxes[0, 0] += 1
    assert is_new()


def test_a_store_of_other_weights_is_refused(tmp_path, dataset):
    """Renamed by hand, say: the file inside tells what it is of."""
    detector = Detector()
    first = opened(tmp_path, dataset, detector)
    detector.features.weight.data[0, 0] += 1
    second = opened(tmp_path, dataset, detector)
    shutil.rmtree(second.array.folder)
    first.array.folder.rename(second.array.folder)
    with pytest.raises(UserError, match=r"holds other contents, .*weights.*: delete it"):
        opened(tmp_path, dataset, detector)


def test_no_room(tmp_path, dataset, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(arrays.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match=r"needs 0\.0 GB.*model\.feature_cache\.layer=fc7"):
        opened(tmp_path, dataset, Detector())


def test_a_damaged_store_is_refused(tmp_path, dataset):
    store = opened(tmp_path, dataset, Detector())
    with (store.array.folder / "rows.bin").open("r+b") as file:
        file.truncate(10)
    with pytest.raises(UserError, match=r"is damaged: delete it"):
        opened(tmp_path, dataset, Detector())


def test_rows_of_several_processes(tmp_path):
    """Each writes its own file; ids find the rows again, in any order and twice."""
    files = [RowFiles(tmp_path / "rows", rank, 3) for rank in range(3)]
    rows = [torch.arange(12).view(4, 3) + 100.0 * rank for rank in range(3)]
    ids = np.concatenate([f.append(r[:1]) for f, r in zip(files, rows, strict=True)])
    ids = np.concatenate([ids, *(f.append(r[1:]) for f, r in zip(files, rows, strict=True))])
    order = np.array([11, 0, 3, 3, 7])
    every = torch.cat([r[:1] for r in rows] + [r[1:] for r in rows])
    assert torch.equal(files[1].read(ids[order]).float(), every[order])
    assert files[0].read(ids[:0]).shape == (0, 3)
    again = RowFiles(tmp_path / "rows", 0, 3)  # a process that starts again begins anew
    assert torch.equal(again.read(again.append(rows[1])).float(), rows[1])
    files[0].remove()
    assert not (tmp_path / "rows").exists()
