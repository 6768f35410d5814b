"""VOC's mAP against other programs' figures."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import oracle

from detection.data.voc.annotation import read_annotation
from detection.metrics import VOCMeanAveragePrecision


def inclusive_xywh(words):
    """Corner and sides, as the programs with the +1 rule have them → half-open."""
    x, y, w, h = map(float, words)
    return [x, y, x + w + 1, y + h + 1]


def corners(words):
    """Inclusive corners, as the +1 rule of these programs has them → half-open."""
    x1, y1, x2, y2 = map(float, words)
    return [x1, y1, x2 + 1, y2 + 1]


def read(folder: Path, box, with_score: bool):
    """File → rows of (class, score, box)."""
    rows = {}
    for path in sorted(folder.glob("*.txt")):
        rows[path.stem] = []
        for line in path.read_text().splitlines():
            words = line.split()
            score = float(words[1]) if with_score else 1.0
            rows[path.stem].append((words[0], score, box(words[2 if with_score else 1 :])))
    return rows


def as_input(rows, names, image_ids):
    """Rows of each image as tensors; unknown classes are left out, for they have no gt."""
    result = []
    for image in image_ids:
        known = [r for r in rows.get(image, []) if r[0] in names]
        result.append(
            {
                "boxes": torch.tensor([r[2] for r in known]).float().reshape(-1, 4),
                "scores": torch.tensor([r[1] for r in known], dtype=torch.double),
                "labels": torch.tensor([names.index(r[0]) for r in known], dtype=torch.long),
            }
        )
    return result


@pytest.mark.parametrize("interpolation", ["11", "area"])
@pytest.mark.parametrize("threshold", ["0.1", "0.3", "0.5", "0.75"])
def test_padilla_test_case_1(interpolation, threshold):
    """Its evaluator adds 1 to sides, so x + w is the last pixel: half-open ends one further."""
    folder = oracle("padilla_test_case_1")
    expected = json.loads((folder / "expected.json").read_text())["ap"]

    gts = read(folder / "gts", inclusive_xywh, with_score=False)
    detections = read(folder / "dets", inclusive_xywh, with_score=True)
    ids = sorted(gts)
    name = "11point" if interpolation == "11" else "area"
    metric = VOCMeanAveragePrecision(1, float(threshold), name)
    metric.update(as_input(detections, ["object"], ids), as_input(gts, ["object"], ids))
    want = expected[interpolation][threshold]
    assert metric.compute()["map"].item() == pytest.approx(want, abs=1e-9)


@pytest.mark.parametrize("interpolation", ["11", "area"])
@pytest.mark.parametrize("threshold", ["0.5", "0.75"])
def test_padilla_toy_cats(interpolation, threshold):
    """This program does not know `difficult`, so it is left out."""
    folder = oracle("padilla_toy_cats")
    expected = json.loads((folder / "expected.json").read_text())["replayed"]
    gts = {}
    for path in sorted((folder / "Annotations").glob("*.xml")):
        rows = [
            (o.name, 1.0, [o.box[0] + 1, o.box[1] + 1, o.box[2] + 1, o.box[3] + 1])
            for o in read_annotation(path).objects
        ]
        gts[path.stem] = rows

    detections = read(folder / "dets_classname_abs_xywh", inclusive_xywh, with_score=True)
    name = "11point" if interpolation == "11" else "area"
    metric = VOCMeanAveragePrecision(1, float(threshold), name)
    ids = sorted(gts)
    metric.update(as_input(detections, ["cat"], ids), as_input(gts, ["cat"], ids))
    want = expected[interpolation][threshold]
    assert metric.compute()["map"].item() == pytest.approx(want, abs=1e-9)


def test_cartucho_map85():
    folder = oracle("cartucho_map85")
    expected = json.loads((folder / "expected.json").read_text())
    gts = read(folder / "ground-truth", corners, with_score=False)
    detections = read(folder / "detection-results", corners, with_score=True)
    names = sorted(expected["per_class"])
    metric = VOCMeanAveragePrecision(len(names))
    ids = sorted(gts)
    metric.update(as_input(detections, names, ids), as_input(gts, names, ids))
    got = metric.compute()
    want = [expected["per_class"][name]["ap"] for name in names]
    np.testing.assert_allclose(got["ap"].numpy(), want, atol=1e-9)
    assert got["map"].item() == pytest.approx(expected["mAP"], abs=1e-9)
    hits = [expected["per_class"][name]["tp"] for name in names]
    curves = metric.curves()
    assert [round(float(c.recall[-1]) * c.num_gt) if len(c.recall) else 0 for c in curves] == hits
