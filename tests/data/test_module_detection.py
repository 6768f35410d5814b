"""Folders in VOC's layout → splits → samples."""

import logging
import operator
from functools import partial, reduce
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import find_proposals, real_data
from PIL import Image
from scipy.io import savemat

from detection.data.detection import DetectionAnnotations
from detection.data.module import DataModule, ShardSampler
from detection.data.sources import existing_folder
from detection.data.splits import stratified_split
from detection.data.voc.annotation import VOCObject
from detection.data.voc.folder import VOCFolder
from detection.data.voc.release import find_release, voc_release
from detection.errors import UserError
from detection.proposals.recall import ProposalRecall
from detection.proposals.selective_search import SelectiveSearch
from detection.regions.detector import RegionDetector

CAT = VOCObject("cat", (5, 5, 30, 30))
DOG = VOCObject("dog", (10, 5, 50, 35), difficult=True)


def data(root, cache="cache", annotations=None, **changes):
    options = {
        "name": "test",
        "task": "detection",
        "layout": VOCFolder,
        "annotations": DetectionAnnotations(**(annotations or {})),
        "root": str(root),
        "val_images": 100,
        "threads": 1,
        "cache": cache,
    }
    return DataModule(**{**options, **changes})


@pytest.fixture
def folder(fake_voc):
    fake_voc.add("a", [CAT])
    fake_voc.add("b", [DOG, CAT])
    fake_voc.add("c", [])
    fake_voc.add("d", [DOG])
    fake_voc.lists(train=["a", "b", "c"], test=["d"])
    return fake_voc


def test_reads_lists_classes_and_samples(folder):
    module = data(folder.root)
    module.setup()
    assert module.class_names == ["cat", "dog"]
    assert module.splits["train"].image_ids == ["a", "b", "c"]
    assert not module.has_val
    sample = module.splits["train"][1]
    assert sample.image.shape == (3, 40, 60)
    assert sample.image.dtype == torch.uint8
    assert sample.target["boxes"].tolist() == [[10, 5, 50, 35], [5, 5, 30, 30]]
    assert sample.target["labels"].tolist() == [1, 0]
    assert sample.target["difficult"].tolist() == [True, False]
    assert module.splits["train"][2].target["boxes"].shape == (0, 4)  # pure background is legal


def test_difficult_objects_can_be_left_out_of_training(folder):
    module = data(folder.root, annotations={"train_on_difficult": False})
    module.setup()
    assert module.splits["train"][1].target["labels"].tolist() == [0]
    assert module.splits["test"][0].target["difficult"].tolist() == [True]  # the metric ignores it


def test_val_list_is_the_test_set_where_there_is_no_other(folder):
    folder.lists(val=["d"])
    (folder.root / "ImageSets" / "Main" / "test.txt").unlink()
    module = data(folder.root)
    module.setup()
    assert module.splits["test"].image_ids == ["d"]
    assert not module.has_val


def test_split_without_lists_is_stratified_and_the_same_again(fake_voc):
    for n in range(40):
        fake_voc.add(f"{n:02d}", [CAT] if n % 4 else [DOG])
    first, second = data(fake_voc.root), data(fake_voc.root)
    first.setup()
    second.setup()
    ids = {split: d.image_ids for split, d in first.splits.items()}
    assert ids == {split: d.image_ids for split, d in second.splits.items()}
    assert sorted(reduce(operator.iadd, ids.values(), [])) == [f"{n:02d}" for n in range(40)]
    dogs = {split: sum(int(i) % 4 == 0 for i in names) for split, names in ids.items()}
    assert dogs == {"train": 7, "val": 1, "test": 2}


def test_split_of_images_without_objects():
    got = stratified_split({"a": [], "b": [], "c": ["x"]}, {"train": 0.67, "test": 0.33}, 0)
    assert sorted(got["train"] + got["test"]) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda f: (f.root / "JPEGImages" / "a.jpg").unlink(),
            r"1 images of .*train\.txt are not in .*: a: restore",
        ),
        (lambda f: (f.root / "Annotations" / "b.xml").unlink(), r"b\.xml is missing"),
        (lambda f: f.lists(train=[]), r"train\.txt lists no image"),
        (lambda f: f.lists(train=["c"]), "no image of the train split .* holds an object"),
        (lambda f: f.add("a", [VOCObject("cow", (0, 0, 9, 9))]), r"'cow' is not in the list"),
    ],
)
def test_mistakes_in_a_folder(folder, break_it, message):
    break_it(folder)
    with pytest.raises(UserError, match=message):
        data(folder.root, annotations={"classes": ["cat", "dog"]}).setup()


def test_missing_root(tmp_path):
    with pytest.raises(UserError, match="there is no such folder"):
        data(tmp_path / "gone").setup()
    with pytest.raises(UserError, match=r"JPEGImages is missing: data\.root="):
        data(tmp_path).setup()
    with pytest.raises(UserError, match=r"data\.root= must name the folder"):
        existing_folder(None)


def test_a_list_of_all_images_is_split_by_itself(fake_voc, caplog):
    """As CVAT exports: `default.txt`; images that are on no list, or without annotation."""
    for n in range(20):
        fake_voc.add(f"{n:02d}", [CAT] if n % 4 else [DOG])
    (fake_voc.root / "Annotations" / "15.xml").unlink()
    fake_voc.lists(default=[f"{n:02d}" for n in range(16)])
    module = data(fake_voc.root)
    with caplog.at_level(logging.INFO):
        module.setup()
    ids = reduce(operator.iadd, [s.image_ids for s in module.splits.values()], [])
    assert sorted(ids) == [f"{n:02d}" for n in range(15)]
    assert "default.txt lists all images" in caplog.text
    table = next(r.getMessage() for r in caplog.records if "boxes of each class" in r.getMessage())
    row = next(line for line in table.splitlines() if "dog" in line)
    counts = [int(cell) for cell in row.replace("│", " ").split()[1:4]]
    assert sum(counts) == 4  # of the fifteen
    assert row.replace("│", " ").split()[4:] == ["35", "35", "35"]  # √(40 · 30) pixels: 34.6


def test_lists_of_other_names_are_never_mixed(fake_voc):
    """Whose test images would be trained on."""
    for n in range(8):
        fake_voc.add(f"{n}", [CAT])
    fake_voc.lists(Train=["0", "1", "2"], Test=["3", "4"])
    with pytest.raises(UserError, match=r"train\.txt is missing; lists there: Test, Train"):
        data(fake_voc.root).setup()


def test_missing_list_names_those_there(folder):
    with pytest.raises(UserError, match=r"vall\.txt is missing; lists there: test, train"):
        data(folder.root, splits={"train": None, "val": "vall", "test": None}).setup()


def test_bad_boxes_are_clipped_or_refused_and_always_told(folder, caplog):
    folder.add("a", [VOCObject("cat", (-3, 5, 70, 30)), VOCObject("cat", (9, 9, 10, 20)), CAT])
    with caplog.at_level(logging.WARNING):
        module = data(folder.root)
        module.setup()
    assert module.splits["train"][0].target["boxes"].tolist() == [[0, 5, 60, 30], [5, 5, 30, 30]]
    assert "object 1 (cat) (-2, 6, 70, 30) leaves the image: clipped" in caplog.text
    assert "object 2 (cat) (10, 10, 10, 20) has no area: dropped" in caplog.text
    with pytest.raises(UserError, match=r"a\.xml object 1 .* leaves the image; mend it"):
        data(folder.root, annotations={"bad_boxes": "refuse"}).setup()


def test_truncated_jpeg_is_named(folder):
    file = folder.root / "JPEGImages" / "a.jpg"
    file.write_bytes(file.read_bytes()[:900])
    module = data(folder.root)
    module.setup()
    with pytest.raises(UserError, match=r"a\.jpg cannot be decoded .*truncated"):
        module.splits["train"][0]


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "RGBA"])
def test_grey_cmyk_and_other_images_become_rgb(folder, mode):
    file = folder.root / "JPEGImages" / "a.jpg"
    suffix = ".jpg" if mode in ("L", "CMYK") else ".png"
    file.unlink()
    Image.new(mode, (60, 40)).save(file.with_suffix(suffix))
    module = data(folder.root)
    module.setup()
    assert module.splits["train"][0].image.shape == (3, 40, 60)


def test_real_bccd_tells_of_its_two_boxes_without_area(caplog):
    with caplog.at_level(logging.WARNING):
        module = data(real_data("bccd"))
        module.setup()
    assert {k: len(v) for k, v in module.splits.items()} == {"train": 205, "val": 87, "test": 72}
    assert module.class_names == ["Platelets", "RBC", "WBC"]
    assert caplog.text.count("has no area") == 2
    assert "BloodImage_00338" in caplog.text
    assert "BloodImage_00343" in caplog.text


def test_proposals_come_with_samples(folder, tmp_path):
    module = data(folder.root, cache=tmp_path / "cache")
    module.setup()
    find_proposals(module, SelectiveSearch(min_side_px=5))
    (sample,) = next(iter(module.test_dataloader()))
    assert sample.image_id == "d"
    assert len(sample.proposals) >= 1
    assert set(ProposalRecall.of(module.splits["test"]).figures()) == {
        "proposals/recall_0.5",
        "proposals/recall_0.7",
        "proposals/mabo",
        "proposals/boxes_per_image",
    }


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("length", [3, 5, 7])
def test_every_image_exactly_once_over_all_processes(world, length):
    seen = [i for rank in range(world) for i in ShardSampler(length, rank, world)]
    assert sorted(seen) == list(range(length))


def test_a_process_without_images_takes_one_too():
    """Lightning waits for all processes at each epoch's end."""
    assert list(ShardSampler(2, 3, 5)) == [1]


def test_voc_release_is_found_at_any_depth(fake_voc, tmp_path):
    for target in ("VOC2007", "VOCdevkit/VOC2007"):
        root = tmp_path / target.replace("/", "_")
        (root / target / "JPEGImages").mkdir(parents=True)
        assert find_release(root, "2007") == root / target
    with pytest.raises(UserError, match="holds no VOC 2007; looked for"):
        find_release(tmp_path, "2007")


def test_failed_download_says_what_to_do(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("detection.data.voc.release.VOCDetection", offline)
    source = partial(voc_release, year="2007", download_to=str(tmp_path), image_sets=["trainval"])
    with pytest.raises(UserError, match=r"could not be downloaded.*data\.root=FOLDER"):
        source(None)


class Detector(RegionDetector):
    """Its proposals alone."""

    def __init__(self, published_boxes):
        torch.nn.Module.__init__(self)
        self.published_boxes, self.search = published_boxes, SelectiveSearch()
        self.prepared = ""
        self.features = SimpleNamespace(advice=lambda shares: "")


def test_mat_boxes_of_the_authors_instead_of_our_own(fake_voc, tmp_path):
    """For the split that is given one; the file must know every image."""
    for image_id in ("a", "b"):
        fake_voc.add(image_id, [CAT])
    fake_voc.lists(train=["a"], test=["b"])
    cells = np.empty((1, 1), object)
    cells[0, 0] = np.array([[6, 6, 30, 30], [1, 1, 40, 60]], np.uint16)
    savemat(tmp_path / "train.mat", {"boxes": cells, "images": np.array(["a"], object)})
    detector = Detector({"train": str(tmp_path / "train.mat")})
    made = data(fake_voc.root, cache=tmp_path / "cache")
    made.setup()
    detector.prepare(made)
    assert made.splits["train"].proposals(0).tolist() == [[5, 5, 30, 30], [0, 0, 60, 40]]
    assert len(made.splits["test"].proposals(0)) > 0
    fake_voc.lists(train=["b"], test=["a"])
    other = data(fake_voc.root, cache=tmp_path / "cache")
    other.setup()
    with pytest.raises(UserError, match=r"train\.mat have no boxes for 1 of 1 images, such as b"):
        detector.prepare(other)


def test_a_stage_may_train_on_a_part_of_train(folder):
    folder.lists(train=["a", "b", "c"], part=["c", "a"], test=["d"])
    module = data(folder.root)
    module.setup()
    assert module.splits["train"].chosen(None) == [0, 1, 2]
    assert module.splits["train"].chosen("part") == [2, 0]
    with pytest.raises(UserError, match=r"1 images of test are not in .*such as d"):
        module.splits["train"].chosen("test")


def test_a_test_without_annotations_is_tested_on(folder, caplog):
    """As VOC 2012's: what is found goes to a server."""
    (folder.root / "Annotations" / "d.xml").unlink()
    module = data(folder.root)
    module.setup()
    assert "no image of" in caplog.text
    assert module.splits["test"].num_objects == 0
    (folder.root / "Annotations" / "a.xml").unlink()
    with pytest.raises(UserError, match=r"a\.xml"):
        data(folder.root).setup()


def rewrite(xml, old, new):
    """Change an annotation as a labelling program might have written it."""
    text = xml.read_text()
    assert old in text
    xml.write_text(text.replace(old, new))


def test_an_annotation_without_a_size_takes_the_images(folder, caplog):
    """0×0, as in a quarter of one public set, or none at all: no object is lost."""
    xml = folder.root / "Annotations" / "a.xml"
    rewrite(xml, "<width>60</width>", "<width>0</width>")
    rewrite(xml, "<height>40</height>", "<height>0</height>")
    with caplog.at_level(logging.WARNING):
        module = data(folder.root)
        module.setup()
    assert module.splits["train"].gt(0).boxes.tolist() == [[5, 5, 30, 30]]
    assert "a.xml: <size> is 0×0, the image 60×40: the image's counts" in caplog.text
    text = xml.read_text()
    xml.write_text(text[: text.index("<size>")] + text[text.index("</size>") + 7 :])
    module = data(folder.root)
    module.setup()
    assert module.splits["train"].gt(0).boxes.tolist() == [[5, 5, 30, 30]]


def test_boxes_of_an_image_that_was_scaled_are_scaled(folder, caplog):
    """Annotated at 600×400, shrunk to 60×40 afterwards."""
    folder.add("a", [VOCObject("cat", (50, 100, 300, 400))])
    xml = folder.root / "Annotations" / "a.xml"
    rewrite(xml, "<width>60</width>", "<width>600</width>")
    rewrite(xml, "<height>40</height>", "<height>400</height>")
    with caplog.at_level(logging.WARNING):
        module = data(folder.root)
        module.setup()
    assert module.splits["train"].gt(0).boxes.tolist() == [[5, 10, 30, 40]]
    assert "a.xml: <size> is 600×400, the image 60×40: boxes are scaled" in caplog.text


def test_an_image_of_another_shape_is_refused(folder):
    """Turned by its EXIF entry after it was annotated, say."""
    xml = folder.root / "Annotations" / "a.xml"
    rewrite(xml, "<width>60</width>", "<width>40</width>")
    rewrite(xml, "<height>40</height>", "<height>60</height>")
    with pytest.raises(UserError, match=r"a\.xml: <size> is 40×60, the image 60×40: .*turned"):
        data(folder.root).setup()


def test_validation_images_are_held_aside_where_there_is_no_list(fake_voc):
    """A tenth of train at most, never test images; val_images=0 trains on all."""
    for n in range(40):
        fake_voc.add(f"{n:02d}", [CAT])
    names = [f"{n:02d}" for n in range(40)]
    fake_voc.lists(train=names[:30], test=names[30:])
    module = data(fake_voc.root)
    module.setup()
    assert [len(module.splits[s]) for s in ("train", "val", "test")] == [27, 3, 10]
    assert set(module.splits["val"].image_ids) < set(names[:30])
    assert not set(module.splits["val"].image_ids) & set(module.splits["train"].image_ids)
    few = data(fake_voc.root, val_images=2)
    few.setup()
    assert len(few.splits["val"]) == 2
    none = data(fake_voc.root, val_images=0)
    none.setup()
    assert not none.has_val
    assert len(none.splits["train"]) == 30


def test_a_val_list_that_is_trained_on_is_not_validated_on(fake_voc):
    """As in VOC 2007, whose trainval.txt holds val.txt."""
    names = [f"{n:02d}" for n in range(40)]
    for name in names:
        fake_voc.add(name, [CAT])
    fake_voc.lists(train=names[:15], val=names[15:30], trainval=names[:30], test=names[30:])
    for splits, sizes in (({"train": "trainval"}, [27, 3, 10]), ({}, [15, 15, 10])):
        module = data(fake_voc.root, splits=splits)
        module.setup()
        assert [len(module.splits[s]) for s in ("train", "val", "test")] == sizes
        assert not set(module.splits["val"].image_ids) & set(module.splits["train"].image_ids)


def test_a_limit_takes_a_few_images_of_each_split(folder):
    module = data(folder.root, limit=1)
    module.setup()
    assert [len(split) for split in module.splits.values()] == [1, 1]
