"""An RPN as a source of proposals: its boxes, its training, and a detector that stands on it."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import fit
from rectangles import lite0, read_rectangles
from torch.optim import AdamW

from detection.boxes import box_iou, decode
from detection.data.detection import DetectionAnnotations
from detection.data.voc.folder import VOCFolder
from detection.errors import UserError
from detection.evaluation.detection import DetectionEvaluator
from detection.proposals.recall import ProposalRecall
from detection.regions.detector import RegionDetector
from detection.rpn.anchor_loss import AnchorOptions, anchor_losses, sample_anchors
from detection.rpn.anchors import Anchors
from detection.rpn.proposal_training import ProposalOptions
from detection.rpn.proposals import RPNSearch
from detection.sppnet.features import SPPFeatures
from detection.training.ensemble import as_one

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 255, (80, 110, 3), dtype=np.uint8)


def make(**changes):
    torch.manual_seed(0)
    options = {"anchors": Anchors([24, 40]), "hidden": 32, "sizes": [72], "max_boxes": 50,
               "min_side_px": 4}  # fmt: skip
    return RPNSearch(lite0(), **{**options, **changes}).eval()


def trained(search):
    search.is_trained.fill_(True)
    return search


def test_boxes_are_those_of_the_best_anchors():
    """Against the whole map decoded, and a naive suppression."""
    search = trained(make(sizes=[80], max_candidates=60))
    torch.nn.init.normal_(search.head.score.weight)
    torch.nn.init.normal_(search.head.box.weight, std=0.02)
    found = torch.from_numpy(search(IMAGE))
    with torch.no_grad():
        maps = search.maps(torch.from_numpy(IMAGE).permute(2, 0, 1))
        features = search.head.features(maps)
        scores = search.head.score(features)[0].permute(1, 2, 0).flatten()
        codes = search.head.box(features)[0].permute(1, 2, 0).reshape(-1, 4)
    boxes = decode(search.anchor_boxes(maps), codes)
    boxes[:, 0::2] = boxes[:, 0::2].clamp(0, 110)
    boxes[:, 1::2] = boxes[:, 1::2].clamp(0, 80)
    kept = []
    for number in scores.argsort(descending=True)[:60].tolist():
        box = boxes[number]
        small = (box[2:] - box[:2]).min() < 4
        if small or any(float(box_iou(box[None], other[None])) > 0.7 for other in kept):
            continue
        kept.append(box)
    torch.testing.assert_close(found, torch.stack(kept[:50]), rtol=1e-4, atol=1e-3)


def test_an_untrained_network_proposes_nothing():
    with pytest.raises(UserError, match=r"model\.stages\.propose"):
        make()(IMAGE)


def test_a_tiny_image_has_a_proposal():
    boxes = trained(make(min_side_px=16))(IMAGE[:3, :5])
    assert boxes.tolist() == [[0, 0, 5, 3]]


def test_its_identity_follows_weights_and_settings():
    search = trained(make())
    first = search.identity()
    assert trained(make()).identity() == first
    assert trained(make(max_boxes=51)).identity() != first
    with torch.no_grad():
        search.head.score.bias += 1
    assert search.identity() != first


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    annotations = DetectionAnnotations()
    return read_rectangles(tmp_path_factory, VOCFolder, task="detection", annotations=annotations)


OPTIONS = ProposalOptions(
    sizes=[72], batch_size=4, epochs=6, anchors_per_image=32, cross_boundary=True,
    optimizer=partial(AdamW, lr=3e-3), schedule=None, backpropagate=False,
)  # fmt: skip


def detector(data, **changes):
    torch.manual_seed(0)
    features = SPPFeatures(lite0(), levels=[2, 1], scales_px=[72])
    return RegionDetector(features, data.num_classes, scoring="softmax", search=make(**changes))


def test_it_learns_where_objects_are(data, tmp_path):
    """Held out, and against anchors that nobody trained."""
    model = detector(data, max_boxes=5)
    model.prepare(data)
    assert data.split("test").store is None  # nothing can be found yet
    fit(OPTIONS.stage(model, data, DetectionEvaluator(), 0), tmp_path)
    learnt = ProposalRecall.of(data.split("test"))
    assert learnt.boxes_per_image <= 5
    trained(fresh := make(max_boxes=5))
    for split in ("train", "test"):
        data.split(split).store = None
    model.search, model.prepared = fresh, ""
    model.prepare(data)
    by_chance = ProposalRecall.of(data.split("test"))
    assert learnt.at(0.5) > 0.8
    assert learnt.at(0.5) > by_chance.at(0.5) + 0.3


def test_a_mirrored_images_objects_are_mirrored(data):
    model = detector(data)
    stage = OPTIONS.stage(model, data, DetectionEvaluator(), 0)
    for seed in (2, 3):  # as it is, and mirrored
        image = stage.images[0, seed]
        assert image.mirrored == bool(seed % 2)
        box = image.frames[0].to_view(data.split("train").gt(image.index).boxes)[0]
        colour = image.views[0].float().amax(dim=0)
        painted = (colour > 180).nonzero()  # the rectangles are bright, the noise is not
        y, x = painted.amin(dim=0).tolist()
        bottom, right = (painted.amax(dim=0) + 1).tolist()
        torch.testing.assert_close(
            box, torch.tensor([x, y, right, bottom]).float(), atol=2.5, rtol=0
        )


def test_members_of_an_ensemble_look_where_their_own_network_does(data):
    first, second = (trained_detector(data, seed) for seed in (1, 2))
    first.min_scores = second.min_scores = {"softmax": 0.0, "svm": 0.0}
    sample = data.split("test").sample(0)
    sample.proposals = torch.tensor([[0.0, 0, 9, 9]])  # of some other network
    own = [model.propose(sample.image) for model in (first, second)]
    assert not torch.equal(*own)
    for member, proposals in zip(as_one([first, second]).members, own, strict=True):
        (candidates,) = member.candidates([sample])  # its boxes stay where they are
        boxes = candidates["boxes"][candidates["labels"] == 0]
        torch.testing.assert_close(boxes, proposals)


def trained_detector(data, seed):
    model = detector(data)
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.search.head.score.weight)
    trained(model.search)
    return model.eval()


def test_an_image_without_an_anchor_has_no_loss(data):
    """All leave it, and those are left out."""
    sampled = sample_anchors(
        torch.tensor([[-5.0, 0, 50, 50]]), torch.tensor([[0.0, 0, 9, 9]]), torch.zeros(0, 4),
        (40, 40), AnchorOptions(), np.random.default_rng(0),
    )  # fmt: skip
    assert len(sampled.anchor) == 0
    head = make().head
    rows, labels = torch.zeros(0, 32), torch.zeros(0, dtype=torch.long)
    losses = anchor_losses(head, rows, labels, [sampled], AnchorOptions())
    assert [float(loss) for loss in losses] == [0, 0]
    options = replace(OPTIONS, cross_boundary=False)
    with pytest.raises(UserError, match="every anchor leaves an image of 72 pixels"):
        options.stage(detector(data, anchors=Anchors([90, 100])), data, DetectionEvaluator(), 0)


def test_what_cannot_be_learnt_is_refused(data):
    model = detector(data)
    model.search.backbone.pretrained = False
    with pytest.raises(UserError, match="random and do not learn"):
        OPTIONS.stage(model, data, DetectionEvaluator(), 0)
    with pytest.raises(UserError, match="max_boxes=0"):
        make(max_boxes=0)
