"""ILSVRC's detection data: layouts, ids, boxes, and what is left out."""

import pytest
import torch
from fake_det import WNIDS, FakeDET, small_det

from detection.data.detection import DetectionSplit
from detection.data.ilsvrc import val_halves
from detection.data.ilsvrc.detection import ILSVRCDet, det_classes
from detection.errors import UserError

NAMES = list(det_classes().values())


def opened(root, **changes):
    options = {"candidates": 3, "moves": 50, "seed": 0, "cache": str(root.parent / "cache")}
    return ILSVRCDet(root, **{**options, **changes})


@pytest.fixture(params=["kaggle", "2013"])
def tree(request, tmp_path):
    """A small tree in either layout."""
    return small_det(tmp_path / "det", request.param)


def test_classes_of_the_devkit():
    """ILSVRC_DET_ID 1, 28, 29 (the one that breaks the alphabet), 94, 124 and 200."""
    assert len(det_classes()) == 200
    chosen = [NAMES[i - 1] for i in (1, 28, 29, 94, 124, 200)]
    assert chosen == ["accordion", "bow tie", "bow", "iPod", "person", "zebra"]
    assert det_classes()["n02672831"] == "accordion"


def test_halves_are_even_and_together_are_val(tree):
    data = opened(tree.root)
    one, two = data.ids("val1"), data.ids("val2")
    assert sorted(one + two) == data.ids("val") == [f"val/{i}" for i in tree.val]
    assert len(one) == len(two) == 6
    assert opened(tree.root).ids("val1") == one


def test_halves_are_searched_once(tree, monkeypatch):
    one = opened(tree.root).ids("val1")
    monkeypatch.setattr(val_halves, "balanced_halves", None)
    assert opened(tree.root).ids("val1") == one
    with pytest.raises(TypeError):
        opened(tree.root, seed=1).ids("val1")
    tree.add("val", tree.val[3], [(WNIDS[5], 0, 0, 20, 20)])
    with pytest.raises(TypeError):  # an annotation changed
        opened(tree.root).ids("val1")


def test_published_halves_win(tree, caplog):
    """4 and 8 images with an object of each of two classes: (8 - 4) / 12."""
    caplog.set_level("INFO", "detection")
    for number, names in ((1, tree.val[:4]), (2, tree.val[4:])):
        (tree.lists / f"val{number}.txt").write_text("".join(f"{n} 1\n" for n in names))
    for _ in range(2):
        assert opened(tree.root).ids("val1") == [f"val/{n}" for n in tree.val[:4]]
    assert (
        caplog.text.count("val1 4 images, val2 8; relative imbalance of classes: largest 33.3%")
        == 2
    )
    tree.blacklist(f"12 {WNIDS[0]}")
    assert opened(tree.root).ids("val2") == [f"val/{n}" for n in tree.val[4:-1]]
    (tree.lists / "val1.txt").unlink()
    with pytest.raises(UserError, match=r"val2\.txt lists one half of val only"):
        opened(tree.root).ids("val1")


def test_up_to_n_boxes_of_each_class_of_train(tree):
    """Three images of two boxes a class: 5 boxes are three images, one of which lends one box."""
    data = opened(tree.root)
    ids = data.ids("train5")
    assert len(ids) == 6
    boxes = dict.fromkeys(NAMES[:2], 0)
    for image_id in ids:
        assert not data.is_exhaustive(image_id)
        assert data.image_path(image_id).is_file()
        for thing in data.annotation(image_id).objects:
            boxes[thing.name] += 1
    assert boxes == {NAMES[0]: 5, NAMES[1]: 5}
    assert len(opened(tree.root).ids("train1000")) == 6  # all that there are


def test_sets_may_be_joined(tree):
    data = opened(tree.root)
    ids = data.split_ids({"train": "val1+train2", "val": None, "test": None}, {}, 0)
    assert sum(i.startswith("train/") for i in ids["train"]) == 2
    assert not set(ids["train"]) & set(ids["test"])
    assert "val" not in ids


def test_corners_count_from_0_and_are_scaled_to_the_jpeg(tmp_path):
    """[0, 159] of 160 columns is the whole width; an XML of half the size means the same."""
    tree = FakeDET(tmp_path / "det")
    tree.add_val([(WNIDS[3], 0, 0, 159, 119), (WNIDS[4], 10, 20, 19, 29)])
    tree.add_val([(WNIDS[4], 10, 20, 19, 29)], xml_size=(60, 80))
    tree.write_lists()
    data = opened(tree.root)
    first, second = (data.annotation(f"val/{name}") for name in tree.val)
    assert [o.box for o in first.objects] == [(0, 0, 160, 120), (10, 20, 20, 30)]
    assert [o.box for o in second.objects] == [(20, 40, 40, 60)]
    assert (second.width, second.height) == (160, 120)


def test_images_on_the_blacklist_are_left_out(tree):
    """Lines are the image's number, from 1, and a class."""
    tree.blacklist(f"1 {WNIDS[7]}", f"12 {WNIDS[0]}", f"12 {WNIDS[1]}")
    assert opened(tree.root).ids("val") == [f"val/{i}" for i in tree.val[1:-1]]
    tree.blacklist("one two three")
    with pytest.raises(UserError, match=r"blacklist\.txt line 1 is 'one two three'"):
        opened(tree.root).ids("val")


def test_images_without_objects(tree):
    """Of other classes alone, of none, or of test, which has no annotations."""
    tree.add_val([("n99999999", 0, 0, 50, 50)])
    name = tree.add_val([])
    tree.write_lists()
    data = opened(tree.root)
    for image_id in (f"val/{tree.val[-2]}", f"val/{name}", "test/ILSVRC2012_test_1"):
        assert data.annotation(image_id).objects == []
    assert len(data.ids("val1+val2")) == 14


def test_missing_annotation_is_told(tree):
    """An image of val without one would be a source of false negatives."""
    (tree.boxes["val"] / f"{tree.val[2]}.xml").unlink()
    for use in (lambda d: d.ids("val1"), lambda d: d.annotation(f"val/{tree.val[2]}")):
        with pytest.raises(UserError, match=r"00000003\.xml is missing: add it, or take"):
            use(opened(tree.root))


def test_an_images_edge_stays_its_edge(tmp_path):
    """49 of 50 columns, scaled to 490: a rounding error would leave the image."""
    tree = FakeDET(tmp_path / "det")
    tree.add_val([(WNIDS[3], 0, 0, 49, 49)], size=(490, 490), xml_size=(50, 50))
    tree.write_lists()
    thing = opened(tree.root).annotation(f"val/{tree.val[0]}").objects[0]
    assert thing.box == (0, 0, 490, 490)


def test_train_images_have_no_proposals(tree):
    """Nothing in them is surely background."""
    data = opened(tree.root)
    ids = data.ids("val1+train1000")
    dataset = DetectionSplit(data, ids, NAMES)
    dataset.find_proposals(lambda images: [torch.ones(4, 4).numpy()] * len(images))
    counts = [len(dataset.proposals(i)) for i in range(len(ids))]
    assert counts == [4 if i.startswith("val") else 0 for i in ids]
    assert dataset.num_objects == 12 + 12


def test_mistakes(tree, tmp_path):
    with pytest.raises(UserError, match=r"holds no ILSVRC DET; looked for ILSVRC/Data/DET"):
        opened(tmp_path)
    with pytest.raises(UserError, match="'vall'; ILSVRC DET has val, val1"):
        opened(tree.root).ids("vall")
    with pytest.raises(UserError, match="either 5 or 9 boxes a class"):
        opened(tree.root).ids("train5+train9")
    (tree.images["val"] / f"{tree.val[0]}.JPEG").unlink()
    with pytest.raises(UserError, match=r"00000001\.JPEG is listed but missing"):
        opened(tree.root).annotation(f"val/{tree.val[0]}")
    next(tree.lists.glob("train*_3.txt")).unlink()
    with pytest.raises(UserError, match="lists a class's images"):
        opened(tree.root).ids("train1")
    (tree.lists / "val.txt").unlink()
    with pytest.raises(UserError, match=r"val\.txt is missing"):
        opened(tree.root).ids("val")
