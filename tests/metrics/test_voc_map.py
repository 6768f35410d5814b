"""VOC's mAP against a naive reading of the development kit."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.metrics import VOCMeanAveragePrecision, voc_map


def naive_ap(detections, gts, threshold, interpolation):
    """VOCevaldet.m and VOCap.m, line by line, for one class; half-open boxes.

    detections: (image, score, box); gts: image → list of (box, difficult).
    """
    positives = sum(not difficult for boxes in gts.values() for _, difficult in boxes)
    if positives == 0:
        return float("nan")
    gt_is_found = {image: [False] * len(boxes) for image, boxes in gts.items()}
    tp, fp = [], []
    order = sorted(range(len(detections)), key=lambda d: -detections[d][1])  # sorted() is stable
    for d in order:
        image, _, box = detections[d]
        best, match = -np.inf, None
        for j, (gt, _) in enumerate(gts.get(image, [])):
            width = min(box[2], gt[2]) - max(box[0], gt[0])
            height = min(box[3], gt[3]) - max(box[1], gt[1])
            if width > 0 and height > 0:
                area = (box[2] - box[0]) * (box[3] - box[1])
                area += (gt[2] - gt[0]) * (gt[3] - gt[1])
                overlap = width * height / (area - width * height)
                if overlap > best:
                    best, match = overlap, j
        hit, miss = 0, 0
        if best >= threshold:
            if not gts[image][match][1]:
                if not gt_is_found[image][match]:
                    hit, gt_is_found[image][match] = 1, True
                else:
                    miss = 1
        else:
            miss = 1
        tp.append(hit)
        fp.append(miss)
    tp, fp = np.cumsum(tp), np.cumsum(fp)
    recall = tp / positives
    with np.errstate(invalid="ignore"):
        precision = tp / (tp + fp)
    if interpolation == "11point":
        ap = 0.0
        for t in np.arange(11) * 0.1:
            above = precision[recall >= t]
            above = above[~np.isnan(above)]
            ap += (above.max() if len(above) else 0.0) / 11
        return ap
    precision = np.nan_to_num(precision)
    mrec = np.concatenate([[0], recall, [1]])
    mpre = np.concatenate([[0], precision, [0]])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    i = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(np.sum((mrec[i] - mrec[i - 1]) * mpre[i]))


def random_case(seed: int, images: int = 8, classes: int = 3):
    """Small integer boxes, few scores and IoU = 1/2 exactly: ties everywhere, empty images too."""
    rng = np.random.default_rng(seed)
    grid = rng.integers(0, 4, (64, 2)) * 4
    boxes = np.concatenate([grid, grid + rng.choice([4, 8, 16], (64, 2))], axis=1)
    preds, targets = [], []
    for _ in range(images):
        n, k = rng.integers(0, 6), rng.integers(0, 12)
        targets.append(
            {
                "boxes": torch.tensor(boxes[rng.integers(0, 64, n)]).float().reshape(-1, 4),
                "labels": torch.tensor(rng.integers(0, classes, n)),
                "difficult": torch.tensor(rng.random(n) < 0.3),
            }
        )
        preds.append(
            {
                "boxes": torch.tensor(boxes[rng.integers(0, 64, k)]).float().reshape(-1, 4),
                "scores": torch.tensor(rng.integers(0, 5, k) / 4).float(),
                "labels": torch.tensor(rng.integers(0, classes, k)),
            }
        )
    return preds, targets


def naive(preds, targets, label, threshold, interpolation):
    """`naive_ap` on the metric's input."""
    detections = [
        (image, float(score), box.tolist())
        for image, p in enumerate(preds)
        for box, score, c in zip(p["boxes"], p["scores"], p["labels"], strict=True)
        if c == label
    ]
    gts = {
        image: [
            (box.tolist(), bool(difficult))
            for box, difficult, c in zip(t["boxes"], t["difficult"], t["labels"], strict=True)
            if c == label
        ]
        for image, t in enumerate(targets)
    }
    return naive_ap(detections, gts, threshold, interpolation)


@pytest.mark.parametrize("interpolation", ["11point", "area"])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), threshold=st.sampled_from([0.25, 0.5, 0.75]))
def test_equals_a_naive_reading_of_the_devkit(interpolation, seed, threshold):
    preds, targets = random_case(seed)
    metric = VOCMeanAveragePrecision(3, threshold, interpolation)
    for i in range(0, len(preds), 3):  # in batches
        metric.update(preds[i : i + 3], targets[i : i + 3])
    got = metric.compute()
    want = [naive(preds, targets, c, threshold, interpolation) for c in range(3)]
    np.testing.assert_allclose(got["ap"].numpy(), want, atol=1e-9)
    if not np.isnan(want).all():
        assert got["map"].item() == pytest.approx(np.nanmean(want), abs=1e-9)


@pytest.mark.parametrize("interpolation", ["11point", "area"])
def test_order_of_images_and_of_processes_does_not_matter(interpolation):
    preds, targets = random_case(3)
    whole = VOCMeanAveragePrecision(3, interpolation=interpolation)
    whole.update(preds, targets)
    shuffled = VOCMeanAveragePrecision(3, interpolation=interpolation)
    for i in (1, 3, 5, 7, 0, 2, 4, 6, 3):  # image 3 comes twice
        shuffled.update([preds[i]], [targets[i]], [i])
    assert torch.equal(whole.compute()["ap"], shuffled.compute()["ap"])
    assert torch.equal(pickle.loads(pickle.dumps(whole)).compute()["ap"], whole.compute()["ap"])


def test_the_best_of_each_class_alone_count(monkeypatch):
    """As if only those had been detections, whenever the others are forgotten."""
    preds, targets = random_case(5, images=12)
    scores = iter(np.random.default_rng(0).permutation(1000) / 1000)
    for pred in preds:
        pred["scores"] = torch.tensor([next(scores) for _ in pred["scores"]]).double()
    best = VOCMeanAveragePrecision(3)
    scores, labels = (torch.cat([p[key] for p in preds]) for key in ("scores", "labels"))
    least = torch.stack([scores[labels == c].sort().values[-5] for c in range(3)])
    for pred, target in zip(preds, targets, strict=True):
        good = pred["scores"] >= least[pred["labels"]]
        best.update([{k: v[good] for k, v in pred.items()}], [target])
    for after in (2, 100):
        monkeypatch.setattr(voc_map, "PRUNE_AFTER", after)
        metric = VOCMeanAveragePrecision(3, max_per_class=5)
        for i, (pred, target) in enumerate(zip(preds, targets, strict=True)):
            metric.update([pred], [target], [i])
        assert torch.equal(metric.tables()[0], best.tables()[0])
        assert torch.equal(metric.compute()["ap"], best.compute()["ap"])


def test_iou_of_exactly_the_threshold_is_a_hit():
    metric = VOCMeanAveragePrecision(1)
    box = torch.tensor([[0.0, 0, 10, 10]])
    half = torch.tensor([[0.0, 0, 10, 5]])
    label = torch.tensor([0])
    pred = {"boxes": half, "scores": torch.ones(1), "labels": label}
    metric.update([pred], [{"boxes": box, "labels": label}])
    assert metric.compute()["map"] == 1.0


def test_recall_of_exactly_three_tenths_misses_its_point():
    """0:0.1:1 holds 0.30000000000000004, so recalls 0.1 and 0.2 alone count beside 0."""
    metric = VOCMeanAveragePrecision(1, interpolation="11point")
    boxes = torch.arange(10).float()[:, None] * 20 + torch.tensor([0.0, 0, 10, 10])
    labels = torch.zeros(10, dtype=torch.long)
    pred = {"boxes": boxes[:3], "scores": torch.ones(3), "labels": labels[:3]}
    metric.update([pred], [{"boxes": boxes, "labels": labels}])
    assert metric.compute()["map"].item() == pytest.approx(3 / 11)


def test_nothing_at_all_is_nan_and_no_detection_is_zero():
    metric = VOCMeanAveragePrecision(2)
    assert metric.compute()["map"].isnan()
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    gt = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1])}
    metric.update([empty], [gt])
    assert metric.compute()["ap"].nan_to_num(-1).tolist() == [-1, 0]


def test_refuses_labels_and_interpolations_that_do_not_exist():
    with pytest.raises(ValueError, match="12point"):
        VOCMeanAveragePrecision(1, interpolation="12point")
    gt = {"boxes": torch.tensor([[0.0, 0, 1, 1]]), "labels": torch.tensor([1])}
    empty = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    with pytest.raises(ValueError, match="label is outside 0 to 0"):
        VOCMeanAveragePrecision(1).update([empty], [gt])
