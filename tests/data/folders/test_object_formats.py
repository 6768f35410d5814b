"""COCO's and YOLO's formats: the same samples as in VOC's, and what is wrong with a file."""

import json
import logging
import shutil

import pytest
import torch

from detection.data.detection import DetectionAnnotations, SplitRequest
from detection.data.folders.coco import COCOFolder
from detection.data.folders.yolo import YOLOFolder
from detection.data.voc.annotation import VOCObject
from detection.data.voc.folder import VOCFolder
from detection.errors import UserError

SIZE = (50, 80)
OBJECTS = {
    "a": [VOCObject("cat", (0, 0, 20, 50)), VOCObject("dog", (30, 10, 80, 40), difficult=True)],
    "b": [VOCObject("dog", (12, 5, 48, 45))],
    "c": [],
    "d": [VOCObject("cat", (10, 10, 30, 30))],
}
LISTS = {"train": ["a", "b", "c"], "test": ["d"]}
NAMES = ["cat", "dog"]


@pytest.fixture
def voc(fake_voc):
    """The data in VOC's form."""
    for image_id, objects in OBJECTS.items():
        fake_voc.add(image_id, objects, size=SIZE)
    fake_voc.lists(**LISTS)
    return fake_voc.root


@pytest.fixture
def coco(voc, tmp_path):
    """The same in COCO's; difficult objects are crowds."""
    root = tmp_path / "coco"
    shutil.copytree(voc / "JPEGImages", root / "images")
    for split, ids in LISTS.items():
        rows = [(n, thing) for n, i in enumerate(ids) for thing in OBJECTS[i]]
        write(root / "annotations" / f"instances_{split}.json", {
            "images": [{"id": n, "file_name": f"{i}.jpg", "width": SIZE[1], "height": SIZE[0]}
                       for n, i in enumerate(ids)],
            "categories": [{"id": 7 + n, "name": name} for n, name in enumerate([*NAMES, "cow"])],
            "annotations": [
                {"id": k, "image_id": n, "category_id": 7 + NAMES.index(t.name),
                 "bbox": [t.box[0], t.box[1], t.box[2] - t.box[0], t.box[3] - t.box[1]],
                 "iscrowd": int(t.difficult)} for k, (n, t) in enumerate(rows)],
        })  # fmt: skip
    return root


@pytest.fixture
def yolo(voc, tmp_path):
    """The same in YOLO's, which knows no difficult objects."""
    root = tmp_path / "yolo"
    for split, ids in LISTS.items():
        for image_id in ids:
            (root / split / "images").mkdir(parents=True, exist_ok=True)
            (root / split / "labels").mkdir(exist_ok=True)
            shutil.copy(voc / "JPEGImages" / f"{image_id}.jpg", root / split / "images")
            lines = []
            for thing in OBJECTS[image_id]:
                x1, y1, x2, y2 = thing.box
                w, h = SIZE[1], SIZE[0]
                shares = ((x1 + x2) / 2 / w, (y1 + y2) / 2 / h, (x2 - x1) / w, (y2 - y1) / h)
                lines.append(" ".join(map(str, (NAMES.index(thing.name), *shares))))
            (root / split / "labels" / f"{image_id}.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text(
        "train: ../train/images\ntest: ../test/images\nnc: 2\nnames: [cat, dog]"
    )
    return root


def write(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def samples(folder):
    names, splits = DetectionAnnotations().read(
        folder, SplitRequest("x", val_images=0), ("train", "test")
    )
    assert names == NAMES
    return {s: [splits[s].sample(i) for i in range(len(splits[s]))] for s in ("train", "test")}


def test_one_data_set_in_three_forms(voc, coco, yolo):
    wanted = samples(VOCFolder(voc))
    for form, exact in ((COCOFolder(coco), True), (YOLOFolder(yolo), False)):
        for split, found in samples(form).items():
            assert [s.image_id for s in found] == [s.image_id for s in wanted[split]]
            for one, other in zip(found, wanted[split], strict=True):
                assert torch.equal(one.image, other.image)
                assert torch.equal(one.target["labels"], other.target["labels"])
                torch.testing.assert_close(one.target["boxes"], other.target["boxes"])
                if exact:
                    assert torch.equal(one.target["difficult"], other.target["difficult"])


def test_one_list_is_split_by_itself(coco):
    (coco / "annotations" / "instances_test.json").unlink()
    (coco / "annotations" / "instances_train.json").rename(coco / "all.json")
    folder = COCOFolder(coco)
    assert folder.lists == {}
    ids = folder.split_ids({}, {"train": 0.5, "val": 0, "test": 0.5}, 0)
    assert sorted(i for some in ids.values() for i in some) == ["a", "b", "c"]


def test_categories_without_objects_are_told(coco, caplog):
    caplog.set_level(logging.WARNING)
    COCOFolder(coco)
    assert "no object of cow" in caplog.text


def test_polygons_give_boxes(coco, yolo):
    file = coco / "annotations" / "instances_test.json"
    content = json.loads(file.read_text())
    del content["annotations"][0]["bbox"]
    content["annotations"][0]["segmentation"] = [[10, 12, 30, 10, 20, 30], [15, 15, 16, 16, 15, 16]]
    write(file, content)
    assert COCOFolder(coco).annotation("d").objects[0].box == (10, 10, 30, 30)
    (yolo / "test" / "labels" / "d.txt").write_text("0 0.1 0.2 0.5 0.4 0.3 0.6")
    assert YOLOFolder(yolo).annotation("d").objects[0].box == pytest.approx((8, 10, 40, 30))


def change(part, row, **values):
    def changed(content):
        content[part][row].update(values)
        return content

    return changed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (change("annotations", 0, category_id=99), "annotation 1 is of category 99"),
        (change("annotations", 0, image_id=99), "annotations of image 99, not listed"),
        (change("annotations", 0, bbox=[1, 2, 3]), "annotation 1 has neither"),
        (change("images", 0, file_name="absent.jpg"), r"1 images .*absent\.jpg"),
        (change("images", 0, file_name=None), "image has no 'file_name'"),
        (lambda content: {"images": []}, "no list 'annotations'"),
    ],
)
def test_what_is_wrong_with_a_coco_file(coco, changed, message):
    file = coco / "annotations" / "instances_test.json"
    write(file, changed(json.loads(file.read_text())))
    with pytest.raises(UserError, match=message):
        COCOFolder(coco)


def test_files_that_cannot_be_told_apart(coco):
    shutil.copy(coco / "annotations" / "instances_test.json", coco / "annotations" / "test2.json")
    with pytest.raises(UserError, match="may both hold the annotations of test"):
        COCOFolder(coco)
    named = {s: f"annotations/instances_{s}.json" for s in ("train", "test")}
    assert COCOFolder(coco, **named).ids("test") == ["d"]
    with pytest.raises(UserError, match=r"nothing\.json is missing"):
        COCOFolder(coco, train="nothing.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.5 0.5 1.5 0.5", "line 1: a number is outside 0 to 1"),
        ("\n2 0.5 0.5 0.5 0.5", "line 2: class 2, but there are 2 names"),
        ("0 0.5 0.5 0.5", "line 1: 3 numbers"),
        ("cat 0.5 0.5 0.5 0.5", "line 1: expected a class number"),
    ],
)
def test_what_is_wrong_with_a_yolo_file(yolo, text, message):
    (yolo / "test" / "labels" / "d.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        YOLOFolder(yolo).annotation("d")


def test_images_without_a_label_file_are_background_and_told(yolo, caplog):
    (yolo / "train" / "labels" / "b.txt").unlink()
    assert YOLOFolder(yolo).annotation("b").objects == []
    assert "1 images" in caplog.text
    shutil.rmtree(yolo / "train" / "labels")
    shutil.rmtree(yolo / "test" / "labels")
    with pytest.raises(UserError, match=r"no image of .* has a label file"):
        YOLOFolder(yolo)


def test_images_and_labels_without_a_description(yolo):
    (yolo / "data.yaml").unlink()
    assert YOLOFolder(yolo).classes(["a", "b"]) == ["0", "1"]
    (yolo / "classes.txt").write_text("cat\ndog\n")
    assert YOLOFolder(yolo).ids("train") == ["a", "b", "c"]
    assert YOLOFolder(yolo).classes([]) == NAMES
