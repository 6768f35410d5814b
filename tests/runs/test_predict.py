"""Predictions on images of one's own: files, resuming, bad images, mistakes."""

import csv
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from fake_cls import write_image
from fake_models import CLASSIFIER, DETECTOR
from filelock import FileLock
from PIL import Image
from pycocotools.coco import COCO

from detection.config.build import build_model
from detection.disk.checkpoints import save_model
from detection.disk.images import read_image, read_upright
from detection.errors import UserError
from detection.predict import Predictor
from detection.runs import prediction
from detection.runs.predict import PredictOptions, read_options
from detection.runs.prediction import predict


def made(folder, tree, **thresholds):
    torch.manual_seed(0)
    model = build_model(tree, 3).eval()
    save_model(folder / "model.ckpt", model, tree, {}, ["ant", "bee", "cat"], thresholds)
    for number, size in enumerate([(64, 90), (80, 64), (64, 64)]):
        write_image(folder / "images" / f"{number % 2}" / f"{number}.jpg", number, size)
    paths = {"ckpt": str(folder), "images": str(folder / "images"), "out": str(folder / "out")}
    return model, partial(PredictOptions, **paths)


def rows_of(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.reader(file))


def test_a_detector_writes_what_it_finds(tmp_path):
    """The table, COCO's file and the API say what the model itself says."""
    model, options = made(tmp_path, DETECTOR)
    assert predict(options(threshold=0.26)) == []
    heading, *rows = rows_of(tmp_path / "out")
    assert heading == ["image", "class", "score", "x1", "y1", "x2", "y2"]
    expected = 0
    for name in ("0/0.jpg", "0/2.jpg", "1/1.jpg"):
        pixels = read_image(tmp_path / "images" / name)
        (found,) = model([torch.from_numpy(pixels).permute(2, 0, 1).contiguous()])
        mine = [row for row in rows if row[0] == name]
        kept = found["scores"] >= 0.26
        expected += int(kept.sum())
        assert [float(r[2]) for r in mine] == pytest.approx(found["scores"][kept].tolist())
        boxes = np.array([[float(v) for v in r[3:]] for r in mine])
        np.testing.assert_allclose(boxes, found["boxes"][kept], atol=1e-3)
        assert (tmp_path / "out" / "pictures" / name).is_file()
        assert (tmp_path / "out" / "thumbnails" / name).is_file()
        api = Predictor(tmp_path, threshold=0.26)(tmp_path / "images" / name)
        assert [f.score for f in api] == pytest.approx([float(r[2]) for r in mine])
    assert len(rows) == expected > 0
    coco = COCO(str(tmp_path / "out" / "detections.json"))
    assert len(coco.getAnnIds()) == expected
    sizes = {i["file_name"]: (i["height"], i["width"]) for i in coco.loadImgs(coco.getImgIds())}
    assert sizes == {"0/0.jpg": (64, 90), "0/2.jpg": (64, 64), "1/1.jpg": (80, 64)}
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count("<figure>") == 3
    assert "score of 0.26" in page


def test_each_class_has_the_threshold_of_its_validation(tmp_path):
    made(tmp_path, DETECTOR, ant=0.9, bee=0.1)
    predictor = Predictor(tmp_path)
    # cat has none of its own: the median
    assert predictor.thresholds.tolist() == pytest.approx([0.9, 0.1, 0.5])
    assert Predictor(tmp_path, threshold=0.3).thresholds.tolist() == pytest.approx([0.3] * 3)


def test_a_classifier_writes_its_guesses(tmp_path):
    _, options = made(tmp_path, CLASSIFIER)
    predict(options(batch_size=2))
    heading, *rows = rows_of(tmp_path / "out")
    assert heading == ["image", *(f"{k}_{n}" for n in (1, 2, 3) for k in ("guess", "score"))]
    assert [r[0] for r in rows] == ["0/0.jpg", "0/2.jpg", "1/1.jpg"]
    found = Predictor(tmp_path)(tmp_path / "images" / "1" / "1.jpg")
    assert [f.name for f in found] == rows[2][1::2]
    assert sum(f.score for f in found) == pytest.approx(1, abs=1e-4)
    assert not (tmp_path / "out" / "detections.json").exists()


def test_it_goes_on_where_it_was(tmp_path, monkeypatch):
    """A line that was not written whole is done again; what is done is not."""
    _, options = made(tmp_path, CLASSIFIER)
    predict(options())
    expected = rows_of(tmp_path / "out")
    records = tmp_path / "out" / ".records.jsonl"
    lines = records.read_text().splitlines()
    records.write_text("\n".join([*lines[:2], lines[2][:20]]))
    seen = []
    whole = prediction.looked_at
    monkeypatch.setattr(
        prediction, "looked_at", lambda p, name, file: seen.append(name) or whole(p, name, file)
    )
    predict(options())
    assert seen == ["0/2.jpg", "1/1.jpg"]
    for again, before in zip(rows_of(tmp_path / "out"), expected, strict=True):
        assert again[:2] == before[:2]  # batches differ, and with them the last digits
    assert len(records.read_text().splitlines()) == 4


def test_bad_images_are_told_and_left_out(tmp_path):
    _, options = made(tmp_path, CLASSIFIER)
    (tmp_path / "images" / "bad.jpg").write_bytes(b"no image")
    assert predict(options()) == ["bad.jpg"]
    assert "bad.jpg" in (tmp_path / "out" / "index.html").read_text()
    assert len(rows_of(tmp_path / "out")) == 4
    with pytest.raises(UserError, match=r"bad\.jpg cannot be decoded"):
        predict(options(on_error="stop"))


def test_a_folder_in_use_or_of_something_else_is_refused(tmp_path):
    _, options = made(tmp_path, CLASSIFIER)
    with pytest.raises(UserError, match="holds the images themselves"):
        predict(options(out=str(tmp_path / "images")))
    with pytest.raises(UserError, match="holds other things"):
        predict(options(out=str(tmp_path / "images" / "0"), images=str(tmp_path / "images" / "1")))
    predict(options())
    with pytest.raises(UserError, match="another model, threshold or svd_rank"):
        predict(options(threshold=0.7))
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(UserError, match="in use"):
        predict(options())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ckpt=a"], "must be given"),
        (["ckpt=a", "imgs=b"], "did you mean images"),
        (["ckpt=a", "images=b", "out=c", "on_error=ignore"], "skip or stop"),
        (["ckpt=a", "images=b", "out=c", "num_workers=0"], "at least 1"),
    ],
)
def test_mistakes_in_the_options(words, message):
    with pytest.raises(UserError, match=message):
        read_options(words)


def test_images_are_found_by_folder_file_or_pattern(tmp_path):
    for name in ("a.jpg", "b.PNG", "sub/c.webp", "notes.txt", "out/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    chosen = partial(prediction.chosen_images, out=tmp_path / "out")
    assert list(chosen(str(tmp_path))) == ["a.jpg", "b.PNG", "sub/c.webp"]
    assert list(chosen(str(tmp_path / "a.jpg"))) == ["a.jpg"]
    assert list(chosen(f"{tmp_path}/**/*.webp")) == ["c.webp"]
    with pytest.raises(UserError, match="no image there"):
        chosen(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("turn", range(1, 9))
def test_photographs_are_seen_upright(tmp_path, turn):
    """As OpenCV turns them, for every value of the tag."""
    noise = np.random.default_rng(0).integers(0, 255, (3, 5), np.uint8).repeat(16, 0).repeat(16, 1)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.dstack([noise, noise, noise])).save(
        tmp_path / "a.jpg", exif=exif, quality=100
    )
    expected = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR_RGB)
    found = read_upright(tmp_path / "a.jpg")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 2
