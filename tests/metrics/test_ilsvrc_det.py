"""ILSVRC DET's average precision, against a naive reading of its development kit."""

import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.metrics import ILSVRCDetectionMAP


def naive(images, num_classes):
    """eval_detection.m line by line, in loops: AP of each class, nan without gts."""
    rows = []  # class, score, hit (None: blacklisted)
    wanted = [0] * num_classes
    for detections, gts, blacklist in images:
        for label, _ in gts:
            wanted[label] += label not in blacklist
        gt_is_found = [False] * len(gts)
        for label, score, box in sorted(detections, key=lambda f: -f[1]):
            if label in blacklist:
                rows.append((label, score, None))
                continue
            best, chosen = -math.inf, None
            for k, (other, gt) in enumerate(gts):
                if other != label or gt_is_found[k]:
                    continue
                iw = min(box[2], gt[2]) - max(box[0], gt[0])
                ih = min(box[3], gt[3]) - max(box[1], gt[1])
                if iw <= 0 or ih <= 0:
                    continue
                w, h = gt[2] - gt[0], gt[3] - gt[1]
                union = (box[2] - box[0]) * (box[3] - box[1]) + w * h - iw * ih
                overlap = iw * ih / union
                if overlap >= min(0.5, w * h / ((w + 10) * (h + 10))) and overlap > best:
                    best, chosen = overlap, k
            if chosen is not None:
                gt_is_found[chosen] = True
            rows.append((label, score, chosen is not None))
    return [average_precision(rows, label, wanted[label]) for label in range(num_classes)]


def average_precision(rows, label, wanted):
    """VOCap.m on one class's rows, in the order of images for equal scores."""
    if not wanted:
        return math.nan
    hits = misses = 0
    recall, precision = [0.0], [0.0]
    for _, hit in sorted(((s, h) for k, s, h in rows if k == label), key=lambda r: -r[0]):
        if hit is None:
            continue
        hits, misses = hits + hit, misses + (not hit)
        recall.append(hits / wanted)
        precision.append(hits / (hits + misses))
    recall.append(1.0)
    precision.append(0.0)
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = range(1, len(recall))
    return sum((recall[i] - recall[i - 1]) * precision[i] for i in steps)


def measured(images, num_classes, blocks=1):
    """What the metric says of the same images."""
    return measured_by(images, num_classes, blocks).compute()


def measured_by(images, num_classes, blocks=1):
    """The metric with those images, taken in, in some blocks."""
    metric = ILSVRCDetectionMAP(num_classes)
    for start in range(blocks):
        for number in range(start, len(images), blocks):
            detections, gts, blacklist = images[number]
            pred = {
                "boxes": torch.tensor([b for _, _, b in detections]).reshape(-1, 4).double(),
                "scores": torch.tensor([s for _, s, _ in detections]).double(),
                "labels": torch.tensor([k for k, _, _ in detections], dtype=torch.long),
            }
            target = {
                "boxes": torch.tensor([b for _, b in gts]).reshape(-1, 4).double(),
                "labels": torch.tensor([k for k, _ in gts], dtype=torch.long),
                "ignored": torch.tensor(sorted(blacklist), dtype=torch.long),
            }
            metric.update([pred], [target], [number])
    return metric


corner = st.integers(0, 30)
box = st.tuples(corner, corner, st.integers(1, 30), st.integers(1, 30)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
label = st.integers(0, 2)
image = st.tuples(
    st.lists(st.tuples(label, st.integers(0, 5).map(float), box), max_size=12),
    st.lists(st.tuples(label, box), max_size=6),
    st.sets(label, max_size=1),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(image, min_size=1, max_size=5), st.integers(1, 3))
def test_equals_the_naive_development_kit(images, blocks):
    """Ties, tiny objects, duplicates, blacklisted pairs, empty images, any order of images."""
    want = torch.tensor(naive(images, 3), dtype=torch.double)
    got = measured(images, 3, blocks)["ap"]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9, equal_nan=True)


def test_a_second_detection_takes_the_neighbour():
    """Both overlap the left gt most; VOC would call the second one false."""
    gts = [(0, (0, 0, 40, 40)), (0, (10, 0, 50, 40))]
    detections = [(0, 0.9, (0, 0, 40, 40)), (0, 0.8, (2, 0, 42, 40))]
    assert measured([(detections, gts, set())], 1)["map"].item() == 1.0


def test_small_objects_need_less():
    """10×10: an IoU of 0.25 is enough; at 100×100 it is not."""
    for side, want in ((10, 1.0), (100, 0.0)):
        gts = [(0, (0, 0, side, side))]
        detections = [(0, 0.5, (0, 0, 2 * side, 2 * side))]
        assert measured([(detections, gts, set())], 1)["map"].item() == want


def test_blacklisted_pairs_neither_help_nor_hurt():
    clean = ([(0, 0.5, (0, 0, 9, 9))], [(0, (0, 0, 9, 9))], set())
    dirty = ([(0, 0.9, (50, 50, 60, 60))], [(0, (0, 0, 9, 9))], {0})
    assert measured([clean, dirty], 1)["map"].item() == pytest.approx(1.0)


def test_blacklisted_pairs_stay_with_their_images():
    """Pickled, and taken in in another order, as processes do."""
    clean = ([(0, 0.5, (0, 0, 9, 9))], [(0, (0, 0, 9, 9))], set())
    dirty = ([(0, 0.9, (50, 50, 60, 60)), (1, 0.9, (0, 0, 9, 9))], [(1, (0, 0, 9, 9))], {0})
    metrics = [measured_by(images, 2) for images in ([clean, dirty], [dirty, clean])]
    metrics.append(pickle.loads(pickle.dumps(metrics[0])))
    assert [m.compute()["map"].item() for m in metrics] == pytest.approx([1, 1, 1])


def test_nothing_found_and_nothing_there():
    assert measured([([], [(0, (0, 0, 5, 5))], set())], 2)["ap"][0] == 0
    assert measured([([], [], set())], 2)["ap"].isnan().all()
