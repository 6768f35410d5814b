"""R-CNN's features, batches and training stage."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.optim import SGD
from torchvision.transforms.v2.functional import horizontal_flip

from detection.backbones.zf5 import zf5
from detection.disk.images import ImageCache
from detection.errors import UserError
from detection.evaluation.detection import DetectionEvaluator
from detection.matching import Matcher
from detection.regions.detector import RegionDetector
from detection.regions.sampling import label_windows
from detection.regions.warp import warp_regions
from detection.regions.warped_features import WarpedFeatures
from detection.regions.warped_training import Drawing, WarpedTrainingOptions, WindowBatches
from detection.training.schedules import TrainingLength, one_cycle, step_decay

RULE = Matcher(0.5, 0.0, 0.5)


def make(classes=6, padding_px=8, batch_size=256):
    torch.manual_seed(0)
    backbone = zf5(
        weights=None,
        width=0.125,
        padding="paper",
        normalization="channel",
        input_px=112,
        mean=[0.5] * 3,
        std=[0.25] * 3,
    )
    features = WarpedFeatures(
        backbone, padding_px=padding_px, mode="warp", original_shift=False, batch_size=batch_size
    )
    scores = {"svm": -1.5, "softmax": 0.0}
    return RegionDetector(features, classes, scoring="softmax", min_scores=scores).eval()


@pytest.fixture
def data(shapes_data):
    """The small drawn data set, with its proposals."""
    return shapes_data


def stage(detector, data, **changes):
    options = {
        "batch_size": 16,
        "length": TrainingLength(1, 10, 10),
        "schedule": partial(step_decay, at=[0.5]),
        "dropout": 0.0,
        "memory_gb": 0.1,
    }
    made = WarpedTrainingOptions(**{**options, **changes})
    return made.stage(detector, data, DetectionEvaluator(), 1)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (120, 90)])
def test_odd_images_give_boxes_inside(size):
    detector = make(batch_size=4)
    detector.is_fitted[1] = True
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    limit = torch.tensor([size[1], size[0]])
    corner = torch.rand(9, 2) * limit * 0.8
    (found,) = detector([image], [torch.cat([corner, corner + 0.2 * limit], dim=1)])
    assert len(found["boxes"]) > 0
    assert (found["boxes"][:, :2] >= 0).all()
    assert (found["boxes"][:, 2:] <= limit).all()
    (none,) = detector([image], [torch.zeros(0, 4)])
    assert none["boxes"].shape == (0, 4)


def test_features_are_the_networks_on_each_crop_alone():
    """Whatever the batch size; the crop by hand."""
    detector = make(batch_size=2)
    image = torch.randint(0, 256, (3, 90, 120), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20, 60, 70], [0, 0, 120, 90], [50, 5, 55, 80]])
    features = detector.features
    got = features.pool(features.prepare(image), boxes, (90, 120))
    normalized = features.backbone.normalize(image)
    for box, row in zip(boxes, got, strict=True):
        square = warp_regions([normalized], [box[None]], features.warp)
        want = torch.nn.functional.adaptive_max_pool2d(features.backbone.conv(square), 6)
        torch.testing.assert_close(row, want.flatten(), rtol=1e-4, atol=1e-4)


def test_mirrored_windows_are_windows_of_the_mirrored_image():
    features = make().features
    image = torch.rand(3, 80, 100)
    boxes = torch.tensor([[20.0, 20, 54, 60]])
    mirrored = torch.tensor([[46.0, 20, 80, 60]])  # no edge falls on half a pixel
    got = features([image], [boxes], torch.tensor([True]))
    want = features([horizontal_flip(image)], [mirrored])
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_padding_must_leave_something():
    with pytest.raises(UserError, match=r"padding_px=56 leaves nothing"):
        make(padding_px=56)


def drawing(batches, **changes):
    return Drawing(**{"batches": batches, "per_batch": (3, 5), "flip": True, "seed": 4,
                      "threads": 2, **changes})  # fmt: skip


def test_batches_hold_windows_beside_their_images(data):
    dataset = data.splits["train"]
    tables = label_windows(dataset, RULE, 6)
    batches = list(WindowBatches(dataset, ImageCache(2**30), tables, drawing(5)))
    assert len(batches) == 5
    for images, boxes, labels, mirror, ids in batches:
        assert len(images) == len(boxes)
        assert len(torch.cat(boxes)) == len(labels) == len(mirror) == 8
        assert int((labels == 6).sum()) == 5
        for image, some in zip(images, boxes, strict=True):
            assert image.dtype == torch.uint8
            assert (some[:, 2:] <= torch.tensor([image.shape[2], image.shape[1]])).all()
        assert ids.split(", ")[0] in dataset.image_ids


def test_batches_depend_on_the_seed_alone(data):
    """Neither the threads nor what is kept in memory changes them."""
    dataset = data.splits["train"]
    tables = label_windows(dataset, RULE, 6)
    one = list(WindowBatches(dataset, ImageCache(0), tables, drawing(4, threads=1)))
    many = list(WindowBatches(dataset, ImageCache(2**30), tables, drawing(4, threads=7)))
    for a, b in zip(one, many, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a[0], b[0], strict=True))
        assert torch.equal(torch.cat(a[1]), torch.cat(b[1]))
        assert torch.equal(a[2], b[2])
        assert torch.equal(a[3], b[3])
    other = next(iter(WindowBatches(dataset, ImageCache(0), tables, drawing(1, seed=5))))
    assert not torch.equal(torch.cat(other[1]), torch.cat(one[0][1]))


def test_a_broken_image_stops_the_training(data, tmp_path):
    dataset = data.splits["train"]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    broken = SimpleNamespace(
        paths=[tmp_path / "broken.jpg"] * len(dataset), image_ids=dataset.image_ids
    )
    batches = WindowBatches(broken, ImageCache(0), label_windows(dataset, RULE, 6), drawing(3))
    with pytest.raises(UserError, match=r"broken\.jpg cannot be decoded"):
        list(batches)


def test_rates_of_the_prototxt(data):
    """Head 10 times, biases twice their layer's and without decay; every parameter once."""
    detector = make(data.num_classes)
    learner = stage(detector, data)
    learner.configure_model()
    learner._trainer = SimpleNamespace(accumulate_grad_batches=1)
    (optimizer,), _ = learner.configure_optimizers()
    groups = optimizer.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([1e-3, 2e-3, 1e-2, 2e-2])
    assert [g["weight_decay"] for g in groups] == [5e-4, 0.0, 5e-4, 0.0]
    learnt = {id(p) for g in groups for p in g["params"]}
    assert learnt == {id(p) for part in learner.learns() for p in part.parameters()}
    assert learnt == {id(p) for p in detector.parameters() if p.requires_grad}
    frozen = [detector.head.output(name) for name in ("svm", "box_regressor")]
    assert not any(p.requires_grad for part in frozen for p in part.parameters())


def test_length_of_the_original():
    """70,000 batches on VOC 2007's trainval."""
    epochs, steps = TrainingLength(13.97, 100, 500).epochs(5011)
    assert (epochs, steps) == (141, 500)
    assert TrainingLength(0, 4, 500).epochs(10) == (1, 4)


def test_schedules():
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = step_decay(optimizer, 7, at=[2 / 7, 4 / 7])
    rates = []
    for _ in range(7):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01, 0.01])
    assert one_cycle(optimizer, 10).get_last_lr()[0] < 0.05


def test_every_trained_part_gets_a_gradient_and_the_loss_falls(data):
    detector = make(data.num_classes)
    learner = stage(detector, data, flip=False)
    learner.configure_model()
    optimizer = SGD([p for p in detector.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    batch = next(iter(learner.train_dataloader()))
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(learner.logits(batch), batch[2])
        loss.backward()
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert np.isfinite(losses).all()


def test_only_without_weights(data):
    detector = make(data.num_classes)
    assert stage(detector, data, only_without_weights=True).is_needed()
    detector.features.backbone.pretrained = True
    assert not stage(detector, data, only_without_weights=True).is_needed()
    assert stage(detector, data).is_needed()


def test_settings_tell_layers_without_weights_apart():
    """Two networks of the same weights, but of other padding and normalisation."""
    seen = {
        make_settings(padding, normalization)
        for padding in ("paper", "original")
        for normalization in ("channel", "spatial")
    }
    assert len(seen) == 4


def make_settings(padding, normalization):
    backbone = zf5(weights=None, width=0.125, padding=padding, normalization=normalization,
                   input_px=112, mean=[0.5] * 3, std=[0.25] * 3)  # fmt: skip
    options = {"padding_px": 8, "mode": "warp", "original_shift": False, "batch_size": 2}
    return WarpedFeatures(backbone, **options).settings()
