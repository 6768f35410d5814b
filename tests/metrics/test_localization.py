"""ILSVRC's localisation error against a plain reading of eval_clsloc.m."""

import csv
import gzip
import pickle

import numpy as np
import pytest
import torch
from conftest import real_data
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.metrics import LocalizationError


def overlap(one, other):
    """compute_overlap.m: corners are inclusive pixels."""
    wide = min(one[2], other[2]) - max(one[0], other[0]) + 1
    high = min(one[3], other[3]) - max(one[1], other[1]) + 1
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (one, other)]
    return wide * high / (sum(areas) - wide * high)


def eval_clsloc(images):
    """Errors of images with inclusive corners: (guesses, label, boxes), by loops."""
    located, named = [], []
    for guesses, label, boxes in images:
        named.append(min(g != label for g, _ in guesses))
        if not boxes:  # blacklisted
            continue
        errors = []
        for guess, box in guesses:
            best = max(overlap(box, gt) for gt in boxes)
            errors.append(1 if guess != label or best < 0.5 else 0)
        located.append(min(errors))
    return np.mean(located) if located else np.nan, np.mean(named)


def half_open(boxes):
    """Of inclusive corners."""
    return torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) + torch.tensor([0.0, 0, 1, 1])


def fed(metric, images, ids=None):
    preds = [
        {
            "labels": torch.tensor([g for g, _ in guesses]),
            "boxes": half_open([b for _, b in guesses]),
        }
        for guesses, _, _ in images
    ]
    targets = [{"label": torch.tensor(y), "boxes": half_open(boxes)} for _, y, boxes in images]
    metric.update(preds, targets, ids)


def drawn(seed, count):
    """Images with small integer boxes, so that many overlaps are exactly a half."""
    generator = np.random.default_rng(seed)

    def box():
        x, y, w, h = generator.integers(0, 5, 4)
        return (int(x), int(y), int(x + w), int(y + h))

    return [
        (
            [(int(g), box()) for g in generator.permutation(6)[: generator.integers(1, 6)]],
            int(generator.integers(6)),
            [box() for _ in range(generator.integers(0, 4))],
        )
        for _ in range(count)
    ]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 12))
def test_it_is_the_development_kits(seed, count):
    images = drawn(seed, count)
    metric = LocalizationError(top_k=5)
    fed(metric, images)
    error, named = eval_clsloc(images)
    found = metric.compute()
    assert float(found["error"]) == pytest.approx(error, nan_ok=True)
    assert float(found["classification"]) == pytest.approx(named)
    first = [(guesses[:1], label, boxes) for guesses, label, boxes in images]
    error, named = eval_clsloc(first)
    assert float(found["top1"]) == pytest.approx(error, nan_ok=True)
    assert float(found["classification_top1"]) == pytest.approx(named)


def test_any_box_of_the_label_will_do_and_a_half_is_enough():
    images = [([(1, (0, 0, 9, 4))], 1, [(50, 50, 60, 60), (0, 0, 9, 9)])]
    metric = LocalizationError()
    fed(metric, images)
    assert float(metric.compute()["error"]) == 0


def test_guesses_after_top_k_do_not_count():
    images = [([(0, (0, 0, 9, 9)), (1, (0, 0, 9, 9))], 1, [(0, 0, 9, 9)])]
    errors = []
    for top_k in (1, 2):
        metric = LocalizationError(top_k)
        fed(metric, images)
        errors.append(float(metric.compute()["error"]))
    assert errors == [1, 0]


def test_the_true_class_has_a_box_of_its_own():
    metric = LocalizationError()
    prediction = {"labels": torch.tensor([2]), "boxes": half_open([(0, 0, 9, 9)])}
    target = {"label": torch.tensor(1), "boxes": half_open([(30, 30, 49, 49)])}
    metric.update([prediction], [target])
    assert np.isnan(float(metric.compute()["true_class"]))
    metric.reset()
    metric.update([{**prediction, "true_box": half_open([(31, 31, 49, 49)])[0]}], [target])
    assert float(metric.compute()["true_class"]) == 0
    assert float(metric.compute()["error"]) == 1


def test_an_image_counts_once_and_a_pickled_metric_goes_on():
    images = drawn(3, 9)
    whole, parts = LocalizationError(), LocalizationError()
    fed(whole, images, list(range(9)))
    fed(parts, images[5:], list(range(5, 9)))
    parts = pickle.loads(pickle.dumps(parts))
    fed(parts, images[:6], list(range(6)))  # image 5 again
    for name, value in whole.table().items():
        assert torch.equal(parts.table()[name].nan_to_num(), value.nan_to_num()), name


@pytest.mark.slow
def test_ilsvrcs_validation_boxes_as_they_are():
    """All 50,000: a box of the image is right; elsewhere, or of the next class, it is wrong."""
    folder = real_data("ilsvrc_val_boxes")
    boxes = [[] for _ in range(50_000)]
    labels = [int(line) for line in (folder / "val_labels.txt").read_text().split()]
    with gzip.open(folder / "val_boxes.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            corners = tuple(float(row[k]) for k in ("xmin", "ymin", "xmax", "ymax"))
            boxes[int(row["image"]) - 1].append(corners)
    kinds = np.arange(50_000) % 4  # right; of the next class; far away; third guess right
    metric = LocalizationError()
    far = (5000.0, 5000.0, 5010.0, 5010.0)
    images = []
    for kind, label, some in zip(kinds, labels, boxes, strict=True):
        good = (label, some[-1])
        guesses = {0: [good], 1: [(label + 1, some[0])], 2: [(label, far)],
                   3: [(label + 2, far), (label + 1, far), good]}[int(kind)]  # fmt: skip
        images.append((guesses, label, some))
    fed(metric, images)
    found = metric.compute()
    assert float(found["error"]) == 0.5
    assert float(found["top1"]) == 0.75
    assert float(found["classification"]) == 0.25
