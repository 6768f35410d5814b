"""The region-based detector."""

import pytest
import torch

from detection.backbones.averaged import resnet
from detection.backbones.zf5 import zf5
from detection.combine.nms import NMS
from detection.data.samples import Sample
from detection.disk.checkpoints import read_checkpoint, restore_model, save_model
from detection.errors import UserError
from detection.proposals.selective_search import SelectiveSearch
from detection.regions.detector import BOX_REGRESSOR, SVM, RegionDetector
from detection.regions.warped_features import WarpedFeatures
from detection.sppnet.features import SPPFeatures, pyramid_fc6
from detection.training.ensemble import Ensemble

BACKBONE = {
    "weights": None,
    "width": 0.25,
    "padding": "paper",
    "normalization": "channel",
    "input_px": 112,
    "mean": [0.5] * 3,
    "std": [0.25] * 3,
}
FEATURES = {
    "levels": [6, 3, 2, 1],
    "scales_px": [120],
    "max_side_px": 1000,
    "scale_rule": "paper",
    "target_px": 224,
    "shrink_px": 6.5,
}
DETECTOR = {
    "layer": "fc7",
    "scoring": "svm",
    "min_scores": {"svm": -1.5, "softmax": 0.0},
    "precision": "float32",
}


def make(layer="fc7", scales=(120,), **changes):
    torch.manual_seed(0)
    features = SPPFeatures(zf5(**BACKBONE), **{**FEATURES, "scales_px": list(scales)})
    return RegionDetector(
        features,
        3,
        **{**DETECTOR, "layer": layer, **changes},
        combine=NMS(0.3, 100, 300),
        search=SelectiveSearch(),
    ).eval()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (333, 47), (200, 201)])
@pytest.mark.parametrize("scales", [(120,), (100, 140, 180)])
def test_odd_images(size, scales):
    detector = make(scales=scales)
    detector.is_fitted[1] = True
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(30, 2, generator=generator) * torch.tensor([size[1], size[0]]) * 0.8
    boxes = torch.cat([corner, corner + 0.2 * torch.tensor([size[1], size[0]])], dim=1)
    (found,) = detector([image], [boxes])
    assert len(found["boxes"]) > 0
    assert (found["boxes"][:, :2] >= 0).all()
    assert (found["boxes"][:, 2:] <= torch.tensor([size[1], size[0]])).all()
    assert found["labels"].dtype == torch.int64


def test_a_second_round_starts_where_the_first_ended():
    """R-CNN, appendix C: each box is scored and moved again, for its own class."""
    once, twice = make(), make(box_rounds=2)
    for model in (once, twice):
        model.is_fitted[1] = True
        generator = torch.Generator().manual_seed(2)
        for parameter in model.head.output(BOX_REGRESSOR).parameters():
            parameter.data.normal_(0, 0.01, generator=generator)
    image = torch.randint(0, 256, (3, 120, 150), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 50], [30, 40, 140, 110], [0, 0, 150, 120]])
    first, second = once.score_boxes(image, boxes), twice.score_boxes(image, boxes)
    assert len(first["boxes"]) == len(second["boxes"]) == 9  # every pair scores enough
    assert not torch.equal(first["boxes"], second["boxes"])
    for row in range(9):
        (again,) = torch.nonzero(first["labels"][row] == torch.arange(3))
        alone = once.score_boxes(image, first["boxes"][row : row + 1])
        place = (alone["labels"] == again).nonzero()[0, 0]
        torch.testing.assert_close(second["boxes"][row], alone["boxes"][place])
        torch.testing.assert_close(second["scores"][row], alone["scores"][place])


def test_finds_its_own_proposals_and_takes_floats():
    detector = make()
    image = torch.randint(0, 256, (3, 90, 110), dtype=torch.uint8)
    (by_bytes,), (by_floats,) = detector([image]), detector([image.float() / 255])
    assert len(by_bytes["boxes"]) > 0
    torch.testing.assert_close(by_bytes["scores"], by_floats["scores"])


def test_no_proposals_give_no_detections():
    (found,) = make()([torch.zeros(3, 50, 60)], [torch.zeros(0, 4)])
    assert found["boxes"].shape == (0, 4)


@pytest.mark.parametrize("layer", ["pool5", "fc6", "fc7"])
def test_svm_reads_its_layer_and_softmax_scores_before_it(layer):
    detector = make(layer)
    pooled = torch.rand(4, detector.features.out_features)
    assert detector.score(pooled).sum(dim=1).le(1).all()  # the softmax without background
    detector.is_fitted[0] = True
    want = detector.head.output(SVM)(detector.head.layers(pooled, layer))
    assert torch.equal(detector.score(pooled), want)
    assert make(layer, scoring="softmax").scored_by == "softmax"


def test_learnt_regression_moves_boxes():
    detector = make()
    torch.nn.init.zeros_(detector.head.output(BOX_REGRESSOR).weight)
    torch.nn.init.zeros_(detector.head.output(BOX_REGRESSOR).bias)
    detector.head.output(BOX_REGRESSOR).bias.data[4] = 0.5  # class 1, dx
    boxes = torch.tensor([[10.0, 10, 30, 30]])
    pooled = torch.rand(1, detector.features.out_features)
    assert torch.equal(
        detector.move(pooled, torch.tensor([0]), boxes, (100, 100)), boxes.expand(1, 3, 4)
    )
    detector.is_fitted[1] = True
    moved = detector.move(pooled, torch.tensor([0]), boxes, (100, 100))[0]
    assert moved.tolist() == [[10, 10, 30, 30], [20, 10, 40, 30], [10, 10, 30, 30]]


@pytest.mark.parametrize(("first", "count"), [(False, 2), (True, 1)])
def test_suppression_before_regression_too(first, count, monkeypatch):
    """Two proposals of IoU 0.6, which regression moves apart: the second may be gone by then."""
    detector = make(suppress_first=first)
    boxes = torch.tensor([[10.0, 10, 50, 50], [20, 10, 60, 50]])
    scores = torch.tensor([[0.9, -9, -9], [0.8, -9, -9]])
    apart = torch.tensor([[0.0, 0, 20, 20], [60, 60, 90, 90]])[:, None].expand(2, 3, 4)
    monkeypatch.setattr(detector, "score", lambda pooled: scores)
    monkeypatch.setattr(detector, "move", lambda *_: apart)
    found = detector.detect(torch.zeros(3, 100, 100, dtype=torch.uint8), boxes)
    kept = found["scores"] > 0
    assert found["boxes"][kept].tolist() == apart[:count, 0].tolist()


def test_each_scale_serves_the_windows_that_choose_it():
    """With several scales a window's features are those of its own scale alone."""
    image = torch.randint(0, 256, (3, 150, 170), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 170, 150], [20, 20, 60, 60]])
    both = make(scales=(160, 600))
    large = both.features.pool(both.features.prepare(image), boxes, (150, 170))
    for scale, row in ((160, 0), (600, 1)):
        one = make(scales=(scale,))
        single = one.features.pool(one.features.prepare(image), boxes, (150, 170))
        torch.testing.assert_close(large[row], single[row])


def test_pretrained_fc6_reads_the_finest_level_as_before():
    fc6 = torch.nn.Linear(5 * 36, 7)
    wider = pyramid_fc6(fc6, 6, (6, 3, 2, 1), pretrained=True)
    maps = torch.rand(2, 5, 6, 6)
    features = torch.zeros(2, 50, 5)
    features[:, :36] = maps.flatten(2).transpose(1, 2)
    features[:, 36:] = torch.rand(2, 14, 5)  # the coarser levels weigh nothing at first
    torch.testing.assert_close(wider(features.flatten(1)), fc6(maps.flatten(1)))


def test_pretrained_fc6_of_another_grid_keeps_its_answer_to_a_flat_map():
    fc6 = torch.nn.Linear(5 * 49, 7)
    wider = pyramid_fc6(fc6, 7, (6, 3, 2, 1), pretrained=True)
    flat = torch.rand(5)
    want = fc6(flat[:, None].expand(5, 49).reshape(1, -1))
    got = wider(flat.expand(1, 50, 5).flatten(1))
    torch.testing.assert_close(got, want, atol=0.05, rtol=0.05)


def test_bfloat16_inference_is_close():
    detector = make()
    image = torch.randint(0, 256, (3, 90, 110), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 60]])
    (exact,) = detector([image], [boxes])
    detector.precision = "bfloat16"
    (rough,) = detector([image], [boxes])
    torch.testing.assert_close(exact["scores"], rough["scores"], atol=0.02, rtol=0)


TREE = {
    "_target_": "detection.regions.detector.RegionDetector",
    **DETECTOR,
    "combine": {"_target_": "detection.combine.nms.NMS"},
    "search": {"_target_": "detection.proposals.selective_search.SelectiveSearch"},
    "features": {
        "_target_": "detection.sppnet.features.SPPFeatures",
        **FEATURES,
        "backbone": {"_target_": "detection.backbones.zf5.zf5", **BACKBONE},
    },
}


def test_checkpoint_round_trip(tmp_path):
    detector = make()
    detector.is_fitted[0] = True
    save_model(tmp_path / "model.ckpt", detector, TREE, {}, ["a", "b", "c"])
    content = read_checkpoint(tmp_path)
    again = restore_model(content)
    image = torch.randint(0, 256, (3, 80, 90), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 60], [0, 0, 90, 80]])
    (first,), (second,) = detector([image], [boxes]), again([image], [boxes])
    assert torch.equal(first["scores"], second["scores"])
    assert content["class_names"] == ["a", "b", "c"]


def test_a_checkpoint_of_version_0_1_is_read(tmp_path):
    """The same weights, under the names they had."""
    detector = make()
    detector.is_fitted[:] = True
    old = {"head.outputs.": "", "head.": "", "is_fitted": "learnt"}
    state = {}
    for key, value in detector.state_dict().items():
        for ours, theirs in old.items():
            if key.startswith(ours):
                key = theirs + key.removeprefix(ours)
                break
        state[key] = value
    assert {"fc6.weight", "svm.bias", "box_regressor.weight", "learnt"} <= state.keys()
    features = {k: v for k, v in TREE["features"].items() if k != "backbone"}
    config = {
        "backbone": TREE["features"]["backbone"],
        "features": features,
        "detector": {
            **{k: v for k, v in TREE.items() if k not in ("features", "combine")},
            "suppression": {
                "_target_": "detection.combine.nms.Suppression",
                "max_iou": 0.3,
                "max_per_class": 100,
                "max_per_image": 300,
            },
        },
        "data": {"name": "x"},
    }
    torch.save(
        {"format": 1, "class_names": ["a", "b", "c"], "config": config, "state_dict": state},
        tmp_path / "detector.ckpt",
    )
    again = restore_model(read_checkpoint(tmp_path))
    image = torch.randint(0, 256, (3, 80, 90), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 60], [0, 0, 90, 80]])
    (first,), (second,) = detector([image], [boxes]), again([image], [boxes])
    for key in ("scores", "boxes", "labels"):
        assert torch.equal(first[key], second[key])


def test_bad_checkpoints_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no model at"):
        read_checkpoint(tmp_path)
    file = tmp_path / "model.ckpt"
    save_model(file, make(), TREE, {}, ["a", "b", "c"])
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(file)
    torch.save({"format": 99}, file)
    with pytest.raises(UserError, match=r"not a model\.ckpt of this version"):
        read_checkpoint(file)
    save_model(file, make(), TREE, {}, ["a", "b"])
    with pytest.raises(UserError, match="trained on 2 classes: a, b"):
        restore_model(read_checkpoint(file))


def test_margins_are_exact_where_inference_is_not():
    """Rounded to bfloat16, margins tie."""
    detector = make()
    detector.is_fitted[0] = True
    with torch.autocast("cpu", torch.bfloat16):
        margins = detector.score(torch.rand(400, detector.features.out_features))
    assert len(margins.unique()) > 0.99 * margins.numel()


def test_two_detectors_as_one_suppress_the_union_of_their_boxes():
    """SPP-net, 4.4: an ensemble of a detector and itself finds what it finds."""
    detector = make()
    image = torch.randint(0, 256, (3, 80, 90), dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 10, 60, 60], [0, 0, 90, 80], [30, 5, 80, 70]])
    sample = Sample(image, {}, "one", 0, boxes)
    (alone,) = detector.predict([sample])
    (twice,) = Ensemble([detector, detector], detector.combination).predict([sample])
    order = [found["scores"].argsort(stable=True) for found in (alone, twice)]
    assert torch.equal(alone["scores"][order[0]], twice["scores"][order[1]])
    with pytest.raises(UserError, match="same scoring"):
        Ensemble([detector, make(scoring="softmax")], detector.combination)


def test_a_network_without_fc_layers_gets_fresh_ones():
    """`model=sppnet backbone=resnet50`: a gradient reaches them, and the map is ResNet's."""
    net = resnet(blocks=[1, 1, 1, 1], stride_on="3x3", weights=None, input_px=224,
                 mean=[0.5] * 3, std=[0.25] * 3)  # fmt: skip
    for features in (SPPFeatures(net, levels=[2, 1], hidden=16), WarpedFeatures(net, hidden=16)):
        detector = RegionDetector(features, 3)
        pooled = torch.rand(2, features.out_features)
        detector.logits(pooled).sum().backward()
        assert detector.head.fc6.weight.grad.abs().sum() > 0
        assert detector.head.fc7.out_features == 16
