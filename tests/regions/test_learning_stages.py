"""SVMs and box regression of whole stages, against the same written image by image."""

import numpy as np
import pytest
import torch
from conftest import fit
from torchvision.ops import box_iou

from detection.backbones.head import FullyConnected
from detection.evaluation.detection import DetectionEvaluator
from detection.regions.box_regression import BoxRegressionOptions
from detection.regions.detector import BOX_REGRESSOR, SVM, RegionDetector
from detection.regions.svm import MiningRule, SVMOptions, train_svm
from detection.regions.svm_stage import SVMStageOptions

OPTIONS = SVMOptions()


class Features(torch.nn.Module):
    """Mean and spread of the colours inside a box, and its shape → 24 numbers."""

    out_features = 24

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 24))

    def fully_connected(self):
        return FullyConnected(torch.nn.Linear(24, 16), torch.nn.Linear(16, 12), False)

    def settings(self):
        return ""

    def prepare(self, image):
        return [image.float() / 255]

    def pool(self, prepared, boxes, size):
        image = prepared[0]
        rows = []
        for x1, y1, x2, y2 in boxes.round().long().tolist():
            inside = image[:, y1 : max(y2, y1 + 2), x1 : max(x2, x1 + 2)].flatten(1)
            shape = torch.tensor([(x2 - x1) / size[1], (y2 - y1) / size[0]])
            rows.append(torch.cat([inside.mean(1), inside.std(1), shape]))
        return (torch.stack(rows) @ self.weight).relu()


@pytest.fixture
def detector(shapes_data):
    torch.manual_seed(0)
    return RegionDetector(
        Features(), shapes_data.num_classes, min_scores={"svm": -1.5, "softmax": 0.0}
    )


def svm_stage(detector, data, **changes):
    rule = MiningRule(duplicate_max_iou=1, retrain_after=300)
    options = SVMStageOptions(rule=rule, images_per_round=1, norm_boxes=1000, **changes)
    return options.stage(detector, data, DetectionEvaluator(), 3)


def regions_of(detector, data, layer):
    """Of each image: boxes, ground truth, its labels, features; and the features' scale."""
    dataset, images, features = data.splits["train"], [], detector.features
    for index in range(len(dataset)):
        gt_boxes, labels, _ = dataset.gt(index)
        boxes = dataset.regions(index)
        pixels = dataset[index].image
        pooled = features.pool(features.prepare(pixels), boxes, tuple(pixels.shape[1:]))
        images.append((boxes, gt_boxes, labels, detector.head.layers(pooled, layer)))
    norms = torch.cat([found.norm(dim=1) for *_, found in images])
    return images, 20.0 / float(norms.mean())


def naive_svm(images, scale, label):
    """One class: R-CNN's mining as rcnn_train.m has it; also how often it was trained."""
    positives = [found[: len(gt_boxes)][labels == label] * scale
                 for _, gt_boxes, labels, found in images]  # fmt: skip
    positives = torch.cat(positives).half()
    weight, bias, trained, evicted = torch.zeros(positives.shape[1]), torch.zeros(()), 0, 0
    negatives, new = positives[:0], 0
    for number, (boxes, gt_boxes, labels, found) in enumerate(images):
        scaled = found * scale
        far = torch.ones(len(boxes), dtype=torch.bool)
        if (labels == label).any():
            far = box_iou(boxes, gt_boxes[labels == label]).amax(dim=1) < 0.3
        hard = far if number == 0 else far & (scaled @ weight + bias > -1.0001)
        negatives = torch.cat([negatives, scaled[hard].half()])
        new += int(hard.sum())
        if number == len(images) - 1 or new > (0 if number == 0 else 300):
            rows = torch.cat([positives, negatives]).float().double().numpy()
            weight, bias = train_svm(rows, len(positives), OPTIONS, 3)
            keep = negatives.float() @ weight + bias >= -1.2
            trained, evicted, new = trained + 1, evicted + int((~keep).sum()), 0
            negatives = negatives[keep]
    return weight * scale, bias, trained, evicted


def test_svms_are_those_of_the_original_pass(detector, shapes_data, tmp_path):
    with torch.no_grad():
        images, scale = regions_of(detector, shapes_data, "fc7")
        wanted = [naive_svm(images, scale, c) for c in range(detector.num_classes)]
    assert max(trained for *_, trained, _ in wanted) > 2
    assert max(evicted for *_, evicted in wanted) > 0
    fit(svm_stage(detector, shapes_data), tmp_path)
    assert bool(detector.is_fitted[0])
    for label, (weight, bias, _, _) in enumerate(wanted):
        torch.testing.assert_close(
            detector.head.output(SVM).weight[label].detach(), weight, rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(
            detector.head.output(SVM).bias[label].detach(), bias, rtol=1e-3, atol=1e-4
        )
    assert not (tmp_path / "examples").exists()


def test_negatives_come_from_images_that_are_annotated_whole(detector, shapes_data, monkeypatch):
    dataset = shapes_data.splits["train"]
    monkeypatch.setattr(dataset, "searched", [1, 4, 7, 9])
    assert svm_stage(detector, shapes_data).mined == [1, 4, 7, 9]
    some = svm_stage(detector, shapes_data, negative_images=2).mined
    assert len(some) == 2
    assert set(some) < {1, 4, 7, 9}
    assert some == svm_stage(detector, shapes_data, negative_images=2).mined


def naive_regression(images, scale, label, ridge, min_iou):
    """One class: rcnn_train_bbox_regressor.m with numpy alone; (4, D) and (4,)."""
    rows, targets = [], []
    for boxes, gt_boxes, labels, found in images:
        if not len(gt_boxes):
            continue
        overlap, match = box_iou(boxes, gt_boxes).max(dim=1)
        for r in range(len(boxes)):
            if overlap[r] < min_iou or labels[match[r]] != label:
                continue
            (a, b, c, d), (e, f, g, h) = boxes[r].tolist(), gt_boxes[match[r]].tolist()
            across, down = (e + g - a - c) / 2 / (c - a), (f + h - b - d) / 2 / (d - b)
            targets.append([across, down, np.log((g - e) / (c - a)), np.log((h - f) / (d - b))])
            rows.append(found[r].half().double().numpy() * scale)
    x, y = np.column_stack([rows, np.ones(len(rows))]), np.array(targets)
    mean = y.mean(axis=0)
    values, vectors = np.linalg.eigh((y - mean).T @ (y - mean) / len(y))
    whiten = vectors / np.sqrt(values + 0.001) @ vectors.T
    unwhiten = vectors * np.sqrt(values + 0.001) @ vectors.T
    beta = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ ((y - mean) @ whiten))
    beta = beta @ unwhiten
    return beta[:-1].T * scale, beta[-1] + mean


def test_box_regression_is_that_of_the_original(detector, shapes_data, tmp_path):
    with torch.no_grad():
        images, scale = regions_of(detector, shapes_data, "pool5")
    options = BoxRegressionOptions(norm_boxes=1000)
    stage = options.stage(detector, shapes_data, DetectionEvaluator(), 3)
    fit(stage, tmp_path)
    assert bool(detector.is_fitted[1])
    for label in range(detector.num_classes):
        weight, bias = naive_regression(images, scale, label, 1000.0, 0.5)
        rows = slice(4 * label, 4 * label + 4)
        found = detector.head.output(BOX_REGRESSOR)
        np.testing.assert_allclose(found.weight[rows].detach(), weight, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.bias[rows].detach(), bias, rtol=1e-3, atol=1e-4)
