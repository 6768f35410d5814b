"""Other people's files: what they meant is read, or one line says what is wrong and the remedy."""

import logging

import numpy as np
import pytest
from conftest import TEST_DATA, composed
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from detection.config.plain import plain
from detection.data.voc.annotation import read_annotation
from detection.disk.images import TURNS, read_image, stored_box
from detection.disk.text import read_text, read_xml_text
from detection.errors import UserError
from detection.runs.train import build_data

CASES = TEST_DATA.parent / "cases"
OBJECT = (
    "<object><name>{}</name>{}<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
    "<ymax>{}</ymax></bndbox></object>"
)
CAT = ("cat", "", 21, 11, 60, 50)


def folder(
    root, objects=(CAT,), size=(160, 120), stated="same", exif=None, suffix=".jpg", xml=".xml"
):
    """Four pictures of a cat and a dog each in VOC's layout; the first is as asked."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / name).mkdir(parents=True)
    usual = [CAT, ("dog", "", 80, 30, 120, 100)]
    for number in range(4):
        image = Image.fromarray(np.full((120, 160, 3), 40 * number, np.uint8)).resize(size)
        turn = Image.Exif()
        if exif and number == 0:
            turn[0x0112] = exif
        file = root / "JPEGImages" / f"img{number}{suffix}"
        image.save(file, exif=turn) if exif and number == 0 else image.save(file)
        written = size if stated == "same" or number else stated
        sides = (
            f"<size><width>{written[0]}</width><height>{written[1]}</height></size>"
            if written
            else ""
        )
        things = "".join(OBJECT.format(*o) for o in (objects if number == 0 else usual))
        text = f"<annotation>{sides}{things}</annotation>"
        (root / "Annotations" / f"img{number}{xml}").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("img0\nimg1\n")
    (root / "ImageSets/Main/test.txt").write_text("img2\nimg3\n")
    return root


def data_of(root, *words, splits="fit"):
    """The data module of a folder."""
    common = [f"data.root={root}", f"paths.cache={root}/cache", "data.val_images=0"]
    cfg = composed("data=voc", *common, *words)
    data, _ = build_data(plain(cfg)["data"])
    data.setup(splits)
    return data


def first_boxes(root, *words):
    return data_of(root, *words).split("train").gt(0).boxes.tolist()


def test_a_picture_made_smaller_after_it_was_annotated(tmp_path, caplog):
    assert first_boxes(folder(tmp_path, stated=(320, 240))) == [[10, 5, 30, 25]]
    assert "<size> is 320×240, the image 160×120: boxes are scaled" in caplog.text


@pytest.mark.parametrize("stated", [None, (0, 0), ("?", "?"), ("", 120)])
def test_without_a_size_the_image_says_it(stated, tmp_path, caplog):
    assert first_boxes(folder(tmp_path, stated=stated)) == [[20, 10, 60, 50]]
    assert "the image's counts" in caplog.text


def test_sides_that_are_exchanged(tmp_path, caplog):
    """Boxes prove it that lie in the image alone; where they fit both, nobody knows."""
    wide = [("cat", "", 21, 11, 150, 50)]
    assert first_boxes(folder(tmp_path, wide, stated=(120, 160))) == [[20, 10, 150, 50]]
    assert "its sides are exchanged" in caplog.text
    for number, box in enumerate([(21, 11, 60, 50), (21, 11, 60, 140)]):
        root = folder(tmp_path / str(number), [("cat", "", *box)], stated=(120, 160))
        with pytest.raises(UserError, match="of different shapes"):
            data_of(root)


def test_a_photograph_annotated_as_viewers_show_it(tmp_path, caplog):
    """Orientation 6: stored 160×120, shown 120×160, turned clockwise; the box is turned back."""
    root = folder(tmp_path, [("cat", "", 1, 1, 30, 50)], stated=(120, 160), exif=6)
    assert first_boxes(root) == [[0, 90, 50, 120]]
    assert "which viewers turn (EXIF): so are the boxes" in caplog.text
    half = folder(tmp_path / "half", [("cat", "", 1, 1, 15, 25)], stated=(60, 80), exif=6)
    assert first_boxes(half) == [[0, 90, 50, 120]]  # and then made larger


def test_a_turn_that_no_size_tells_of(tmp_path, caplog):
    assert first_boxes(folder(tmp_path, exif=3)) == [[20, 10, 60, 50]]
    assert "boxes count as of what is stored" in caplog.text


@given(turn=st.sampled_from(sorted(TURNS)), x=st.integers(0, 8), y=st.integers(0, 4),
       w=st.integers(1, 4), h=st.integers(1, 3))  # fmt: skip
@settings(deadline=None)
def test_boxes_are_turned_as_pixels_are(turn, x, y, w, h):
    """Against NumPy: a rectangle is drawn on the shown picture, which is turned back."""
    steps, mirror = TURNS[turn]
    shown = np.rot90(np.zeros((7, 12)), steps).copy()
    x, y = min(x, shown.shape[1] - 1), min(y, shown.shape[0] - 1)
    x2, y2 = min(x + w, shown.shape[1]), min(y + h, shown.shape[0])
    shown[y:y2, x:x2] = 1
    back = np.rot90(shown[:, ::-1] if mirror else shown, -steps)
    rows, columns = back.nonzero()
    want = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert stored_box((x, y, x2, y2), (steps, mirror), (12, 7)) == want


def test_corners_that_are_exchanged(tmp_path, caplog):
    assert first_boxes(folder(tmp_path, [("cat", "", 60, 50, 21, 11)])) == [[20, 10, 60, 50]]
    assert "corners are exchanged" in caplog.text


def test_shares_of_the_sides_are_no_pixels(tmp_path):
    with pytest.raises(UserError, match="shares of the sides"):
        data_of(folder(tmp_path, [("cat", "", 0.2, 0.25, 0.6, 0.75)]))


@pytest.mark.parametrize("box", [(1, 1, 1, 1), (-19, -9, 0, 0)])
def test_a_slip_of_the_mouse_in_a_corner_is_no_share(box, tmp_path, caplog):
    train = data_of(folder(tmp_path, [("cat", "", *box)])).split("train")
    assert (len(train), train.num_objects, train.searched) == (2, 2, [1])
    assert "1 images of train hold a box that is dropped" in caplog.text


def test_a_dropped_box_leaves_its_image_out_of_negatives(tmp_path):
    """The object may be anywhere there; the user may say otherwise, and tests look everywhere."""
    root = folder(tmp_path, [CAT, ("dog", "", 5, 5, 5, 90)])
    assert data_of(root).split("train").searched == [1]
    both = data_of(root, "data.annotations.negatives_beside_dropped=true")
    assert both.split("train").searched == [0, 1]
    (root / "ImageSets/Main/test.txt").write_text("img0\nimg3\n")
    assert data_of(root, splits="test").split("test").searched == [0, 1]


def test_an_object_annotated_twice_is_told(tmp_path, caplog):
    assert len(first_boxes(folder(tmp_path, [CAT, CAT]))) == 2
    assert "1 objects are annotated twice" in caplog.text


@pytest.mark.parametrize(("flags", "difficult"), [
    ("<truncated>0.37</truncated><occluded>2</occluded>", False),
    ("<difficult>Unspecified</difficult>", False), ("<difficult>false</difficult>", False),
    ("<difficult>true</difficult>", True), ("<difficult>0.5</difficult>", True),
    ("<difficult></difficult>", False), ("<difficult>-1</difficult>", False),
])  # fmt: skip
def test_flags_of_other_grades(flags, difficult, tmp_path):
    root = folder(tmp_path, [("cat", flags, 21, 11, 60, 50)])
    (thing,) = read_annotation(root / "Annotations" / "img0.xml").objects
    assert thing.difficult is difficult
    assert thing.truncated is ("0.37" in flags)


@pytest.mark.parametrize(
    "encoding", ["gb2312", "gbk", "big5", "shift_jis", "euc-kr", "utf-16", "latin-1"]
)
def test_xml_in_the_encoding_that_it_declares(encoding, tmp_path):
    word = {"latin-1": "Käfer", "euc-kr": "고양이", "big5": "貓"}.get(encoding, "中文")
    path = tmp_path / "a.xml"
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?>\n<annotation>'
        + OBJECT.format(word, "", 1, 1, 5, 5)
        + "</annotation>"
    )
    path.write_bytes(text.encode(encoding))
    assert read_annotation(path).objects[0].name == word


def test_text_that_nobody_can_read(tmp_path):
    path = tmp_path / "a.xml"
    path.write_bytes(b'<?xml version="1.0" encoding="klingon"?><annotation/>')
    with pytest.raises(
        UserError, match=r"a\.xml declares the encoding 'klingon', which is unknown"
    ):
        read_xml_text(path)
    path.write_bytes(b"<annotation>\xff\xfd</annotation>")
    with pytest.raises(UserError, match=r"a\.xml is not utf-8: byte 12"):
        read_xml_text(path)
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        read_text(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_lists_as_windows_writes_them(encoding, tmp_path):
    root = folder(tmp_path)
    (root / "ImageSets/Main/train.txt").write_bytes("img0\r\nimg1\r\n".encode(encoding))
    assert data_of(root).split("train").image_ids == ["img0", "img1"]


def test_names_with_spaces_and_lists_of_a_class(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = folder(tmp_path)
    for kind, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".xml")):
        (root / kind / f"my cat 1{suffix}").write_bytes(
            (root / kind / f"img1{suffix}").read_bytes()
        )
    (root / "ImageSets/Main/train.txt").write_text("img0\nmy cat 1\n")
    assert data_of(root).split("train").image_ids == ["img0", "my cat 1"]
    (root / "ImageSets/Main/train.txt").write_text("img0  1\nimg1 -1\nmy cat 1  0\n")
    assert data_of(root).split("train").image_ids == ["img0", "my cat 1"]
    assert "1 images marked -1 are not taken" in caplog.text
    (root / "ImageSets/Main/train.txt").write_text("my\nhis\n")
    with pytest.raises(UserError, match=r"2 images of .* are not in .*: my, his"):
        data_of(root)


@pytest.mark.parametrize("place", ["ImageSets", "ImageSets/Segmentation", "."])
def test_lists_in_another_place_are_used_and_named(place, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    root = folder(tmp_path)
    (root / place).mkdir(exist_ok=True)
    for name in ("train", "test"):
        (root / "ImageSets/Main" / f"{name}.txt").rename(root / place / f"{name}.txt")
    (root / "README.txt").write_text("about")
    assert data_of(root).split("train").image_ids == ["img0", "img1"]
    assert "lists of images: " in caplog.text
    assert "README.txt: not taken as lists of images" in caplog.text


def test_a_test_list_alone_is_enough_to_test(tmp_path):
    root = folder(tmp_path)
    (root / "ImageSets/Main/train.txt").unlink()
    assert len(data_of(root, splits="test").split("test")) == 2
    with pytest.raises(UserError, match=r"train\.txt is missing; lists there: test"):
        data_of(root)


def test_classes_are_words_and_no_two_alike(tmp_path):
    root = folder(tmp_path, [("0", "", 21, 11, 60, 50)])
    data = data_of(root, "data.annotations.classes=[0,cat,dog]")
    assert data.class_names == ["0", "cat", "dog"]
    with pytest.raises(UserError, match="names cat twice"):
        data_of(root, "data.annotations.classes=[cat,dog,cat]")


def test_objects_of_other_classes_are_refused_or_left_out(tmp_path, caplog):
    root = folder(tmp_path, [CAT, ("bird", "", 1, 1, 20, 20)])
    words = ["data.annotations.classes=[cat,dog]"]
    with pytest.raises(UserError, match="class 'bird' is not in the list"):
        data_of(root, *words)
    data = data_of(root, *words, "data.annotations.unknown=leave_out")
    assert data.split("train").gt(0).labels.tolist() == [0]
    assert "left out: 1 of 'bird'" in caplog.text


@pytest.mark.parametrize("suffix", [".webp", ".tif", ".bmp", ".JPG", ".png"])
def test_pictures_of_other_kinds(suffix, tmp_path):
    assert len(data_of(folder(tmp_path, suffix=suffix, xml=".XML")).split("train")) == 2


def test_pictures_of_more_bits(tmp_path, caplog):
    """12 of 16 bits are no darkness; 32 bits and shares are of no scale that anyone knows."""
    path = tmp_path / "a.png"
    Image.fromarray(np.full((5, 6), 4000, np.uint16)).save(path)
    assert read_image(path).max() == 4000 >> 4
    Image.fromarray(np.full((5, 6), 64_000, np.uint16)).save(path)
    assert read_image(path).max() == 64_000 >> 8
    for value in (np.full((5, 6), 0.5, np.float32), np.full((5, 6), 70_000, np.int32)):
        Image.fromarray(value).save(tmp_path / "b.tif")
        with pytest.raises(UserError, match=r"b\.tif has values .* 8 or 16 bits"):
            read_image(tmp_path / "b.tif")


def test_two_files_of_one_name(tmp_path):
    root = folder(tmp_path)
    Image.new("RGB", (160, 120)).save(root / "JPEGImages" / "img0.png")
    with pytest.raises(UserError, match="have one name: take one away"):
        data_of(root)


def test_a_broken_link_is_a_missing_file(tmp_path):
    root = folder(tmp_path)
    (root / "JPEGImages/img0.jpg").unlink()
    (root / "JPEGImages/img0.jpg").symlink_to(root / "nowhere.jpg")
    with pytest.raises(UserError, match=r"img0\.jpg is missing"):
        data_of(root)


def test_many_remarks_are_counted_and_kept(tmp_path, caplog):
    root = folder(tmp_path, [CAT, *[("dog", "", n, n, n, n + 9) for n in range(5, 45)]])
    data_of(root)
    (line,) = [
        r.getMessage() for r in caplog.records if "not taken as they stand" in r.getMessage()
    ]
    assert line.startswith("40 boxes or sizes")
    assert "38 more" in line
    assert len((root / "cache/remarks/voc-train.txt").read_text().splitlines()) == 40


READ = ("01_xml_size_other_than_image", "02_exif_turned", "03_size_0x0", "04_swapped_corners",
        "05_gb2312", "06_utf16_list", "08_spaces_in_ids", "09_per_class_list", "12_few_images",
        "15_kitti_flags", "17_webp", "18_upper_case_XML", "21_extra_class", "23_duplicate_objects",
        "28_no_size")  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_the_handed_cases_are_read_whole(name, tmp_path):
    if not (CASES / name).is_dir():
        pytest.skip(f"{CASES} is missing: cases stand beside the folder of DETECTION_TEST_DATA")
    words = ["data.splits.train=cat_train"] if name.startswith("09") else []
    root = CASES / name / "data"
    cfg = composed("data=voc", f"data.root={root}", f"paths.cache={tmp_path}", *words)
    data, _ = build_data(plain(cfg)["data"])
    data.setup()
    for split in data.splits.values():
        for index in range(len(split)):
            boxes, (height, width) = split.gt(index).boxes, split.sample(index).size
            assert len(boxes) > 0
            assert (boxes >= 0).all()
            assert (boxes[:, 2] <= width).all()
            assert (boxes[:, 3] <= height).all()


def test_yolos_shares_are_of_the_photograph_as_it_is_shown(tmp_path):
    """Stored 160×120, shown 120×160 (orientation 6)."""
    for name in ("images/train", "labels/train", "images/test", "labels/test"):
        (tmp_path / name).mkdir(parents=True)
    turn = Image.Exif()
    turn[0x0112] = 6
    for split in ("train", "test"):
        Image.new("RGB", (160, 120)).save(tmp_path / f"images/{split}/{split}.jpg", exif=turn)
        (tmp_path / f"labels/{split}/{split}.txt").write_text("0 0.125 0.15625 0.25 0.3125\n")
    cfg = composed("data=yolo", f"data.root={tmp_path}", f"paths.cache={tmp_path}/cache",
                   "data.val_images=0")  # fmt: skip
    data, _ = build_data(plain(cfg)["data"])
    data.setup()
    assert data.split("train").gt(0).boxes.tolist() == [[0, 90, 50, 120]]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff"])
def test_pictures_that_cannot_be_read_are_told_before_any_work(content, tmp_path):
    """Of the test images, too, and of those without an object."""
    root = folder(tmp_path)
    (root / "JPEGImages/img2.jpg").write_bytes(content)
    (root / "Annotations/img2.xml").write_text("<annotation/>")
    with pytest.raises(UserError, match=r"^image .*img2\.jpg cannot be decoded"):
        data_of(root, splits=None)
    (root / "JPEGImages/img3.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"^2 pictures cannot be read: image .*img2\.jpg"):
        data_of(root, splits=None)
