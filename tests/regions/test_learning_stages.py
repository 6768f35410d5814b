"""SVMs and box regression of whole stages, against the same written image by image."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torchvision.ops import box_iou

from detection.combine.nms import Suppression
from detection.proposals.selective_search import SelectiveSearch
from detection.regions.box_regression import BoxRegressionStage
from detection.regions.detector import RegionDetector
from detection.regions.svm import MiningRule, SVMOptions, train_svm
from detection.regions.svm_stage import SVMStage

OPTIONS = SVMOptions(c=1e-3, positive_weight=2, bias_multiplier=10, tolerance=0.1,
                     max_iterations=1000)  # fmt: skip
RULE = MiningRule(negative_max_iou=0.3, duplicate_max_iou=1, hard_min_score=-1.0001,
                  evict_below_score=-1.2, retrain_after=300)  # fmt: skip


class Features(torch.nn.Module):
    """Mean and spread of the colours inside a box, and its shape → 24 numbers."""

    out_features = 24

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(8, 24))

    def fc_layers(self):
        return torch.nn.Linear(24, 16), torch.nn.Linear(16, 12)

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
        Features(),
        len(shapes_data.class_names),
        layer="fc7",
        scoring="svm",
        min_scores={"svm": -1.5, "softmax": 0.0},
        precision="float32",
        suppression=Suppression(0.3, 100, 300),
        search=SelectiveSearch(),
    )


def fit(stage, folder):
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=folder,
        **stage.trainer_options(),
    )
    trainer.fit(stage)


def svm_stage(detector, data, **changes):
    options = {
        "options": OPTIONS,
        "rule": RULE,
        "images_per_round": 1,
        "negative_images": None,
        "target_norm": 20.0,
        "norm_images": 200,
        "norm_boxes": 1000,
        "memory_gb": 0.1,
        "solver_gb": 1.0,
        "cache": None,
    }
    return SVMStage(detector, data, 3, **{**options, **changes})


def regions_of(detector, data, layer):
    """Of each image: boxes, truths, their labels, features at a layer; and the features' scale."""
    dataset, images, features = data.datasets["train"], [], detector.features
    for index, (truths, labels, _) in enumerate(dataset.truths):
        boxes = dataset.regions(index)
        pixels = dataset[index].image
        pooled = features.pool(features.prepare(pixels), boxes, tuple(pixels.shape[1:]))
        images.append((boxes, truths, labels, detector.layers(pooled, layer)))
    norms = torch.cat([found.norm(dim=1) for *_, found in images])
    return images, 20.0 / float(norms.mean())


def naive_svm(images, scale, label):
    """One class: R-CNN's mining as rcnn_train.m has it; also how often it was trained."""
    positives = [found[: len(truths)][labels == label] * scale
                 for _, truths, labels, found in images]  # fmt: skip
    positives = torch.cat(positives).half()
    weight, bias, trained, evicted = torch.zeros(positives.shape[1]), torch.zeros(()), 0, 0
    negatives, new = positives[:0], 0
    for number, (boxes, truths, labels, found) in enumerate(images):
        scaled = found * scale
        far = torch.ones(len(boxes), dtype=torch.bool)
        if (labels == label).any():
            far = box_iou(boxes, truths[labels == label]).amax(dim=1) < 0.3
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
    assert bool(detector.learnt[0])
    for label, (weight, bias, _, _) in enumerate(wanted):
        torch.testing.assert_close(
            detector.svm.weight[label].detach(), weight, rtol=1e-3, atol=1e-4
        )
        torch.testing.assert_close(detector.svm.bias[label].detach(), bias, rtol=1e-3, atol=1e-4)
    assert not (tmp_path / "examples").exists()


def test_negatives_come_from_images_that_are_annotated_whole(detector, shapes_data, monkeypatch):
    dataset = shapes_data.datasets["train"]
    monkeypatch.setattr(dataset, "searched", [1, 4, 7, 9])
    assert svm_stage(detector, shapes_data).mined == [1, 4, 7, 9]
    some = svm_stage(detector, shapes_data, negative_images=2).mined
    assert len(some) == 2
    assert set(some) < {1, 4, 7, 9}
    assert some == svm_stage(detector, shapes_data, negative_images=2).mined


def naive_regression(images, scale, label, ridge, min_iou):
    """One class: rcnn_train_bbox_regressor.m with numpy alone; (4, D) and (4,)."""
    rows, targets = [], []
    for boxes, truths, labels, found in images:
        if not len(truths):
            continue
        overlap, match = box_iou(boxes, truths).max(dim=1)
        for r in range(len(boxes)):
            if overlap[r] < min_iou or labels[match[r]] != label:
                continue
            (a, b, c, d), (e, f, g, h) = boxes[r].tolist(), truths[match[r]].tolist()
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
    stage = BoxRegressionStage(
        detector, shapes_data, 3, min_iou=0.5, ridge=1000.0, target_norm=20.0, norm_images=200,
        norm_boxes=1000, memory_gb=0.1, cache=None,
    )  # fmt: skip
    fit(stage, tmp_path)
    assert bool(detector.learnt[1])
    for label in range(detector.num_classes):
        weight, bias = naive_regression(images, scale, label, 1000.0, 0.5)
        rows = slice(4 * label, 4 * label + 4)
        found = detector.box_regressor
        np.testing.assert_allclose(found.weight[rows].detach(), weight, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.bias[rows].detach(), bias, rtol=1e-3, atol=1e-4)
