"""OverFeat's detector: places, context, negatives on the fly, training."""

from functools import partial

import pytest
import torch
from conftest import fit
from rectangles import lite0
from torch.optim import AdamW

from detection.boxes import box_iou, clip_boxes_to_image
from detection.combine.nms import NMS
from detection.data.detection import DetectionAnnotations
from detection.data.module import DataModule
from detection.data.samples import Sample
from detection.data.voc.folder import VOCFolder
from detection.errors import TrainingError, UserError
from detection.evaluation.detection import DetectionEvaluator
from detection.localization.box_codes import from_window, to_window
from detection.localization.views import ScaledViews
from detection.matching import Matcher
from detection.overfeat.detector import OverFeatDetector, mirrored_back, nearest
from detection.overfeat.localizer import REGRESSOR
from detection.overfeat.spatial_training import SpatialOptions, with_best
from detection.training.ensemble import as_one

IMAGE = Sample(torch.randint(0, 255, (3, 80, 110), dtype=torch.uint8), {}, "noise", 0)
SIZES = [80, 112, 160]
QUICK = SpatialOptions(
    sizes=SIZES, batch_size=4, epochs=8, schedule=None, optimizer=partial(AdamW, lr=2e-3),
    dropout=0.0, backpropagate=False, pool=64,
)  # fmt: skip


def make(num_classes=2, **changes):
    torch.manual_seed(0)
    options = {"views": ScaledViews(SIZES), "grid": 4, "hidden": 64, "box_hidden": (64, 32)}
    return OverFeatDetector(lite0(), num_classes, **{**options, **changes}).eval()


@pytest.fixture(scope="module")
def data(rectangles, tmp_path_factory):
    made = DataModule(
        name="rectangles", task="detection", layout=VOCFolder, root=str(rectangles),
        annotations=DetectionAnnotations(), cache=tmp_path_factory.mktemp("cache"),
    )  # fmt: skip
    made.setup()
    return made


def test_a_fresh_detector_says_its_windows_at_every_scale():
    model = make(min_score=0.0, views=ScaledViews([80, 112], flip=True))
    torch.nn.init.zeros_(model.regressor.output(REGRESSOR).weight)
    sample = model.transform(IMAGE)
    (found,) = model.candidates([sample])
    expected = []
    for view, frame in zip(sample.views[0], model.views.frames(IMAGE.size), strict=True):
        cells = [model.backbone.map_side(side) for side in view.shape[1:]]
        windows = frame.to_original(model.windows.boxes(cells))
        expected.append(clip_boxes_to_image(windows, IMAGE.size).repeat_interleave(2, dim=0))
    torch.testing.assert_close(found["boxes"], torch.cat(expected), atol=1e-3, rtol=0)
    assert 0 < found["scores"].min() < found["scores"].max() < 1


def test_context_is_what_the_scale_below_saw_at_the_nearest_place():
    model = make()
    sample = model.transform(IMAGE)
    maps = [model.maps(view) for view in sample.views[0]]
    scales = model.scales(maps, model.views.frames(sample.size))
    hidden = [model.head.layers(scale.rows) for scale in scales]
    below = model.below(scales, hidden)
    assert torch.equal(below[0], hidden[0])
    for scale, lower, rows, seen in zip(scales[1:], scales, below[1:], hidden, strict=False):
        centres = [(s.windows[:, :2] + s.windows[:, 2:]) / 2 for s in (scale, lower)]
        for place in range(len(rows)):
            distance = (centres[1] - centres[0][place]).norm(dim=1)
            assert any(
                torch.equal(rows[place], seen[other])
                for other in torch.nonzero(distance <= distance.min() + 1e-4)[:, 0]
            )
    assert make(context=False).below(scales, hidden)[2] is hidden[2]


@pytest.mark.parametrize("code", ["edges", "centre_size"])
def test_what_a_mirrored_view_says_is_mirrored_back(code):
    """A box 10 from the left of a mirrored window is 10 from the right of the window itself."""
    window = torch.tensor([[20.0, 0, 84, 64]])
    mirrored, width = torch.tensor([[30.0, 8, 60, 40]]), 104  # symmetrical about the window
    frame = ScaledViews([64], flip=True).frames((64, width))[1]
    said = to_window(window, mirrored, code)
    back = from_window(window, mirrored_back(said, frame, code), code)
    expected = torch.tensor([[width - 60.0, 8, width - 30, 40]])
    torch.testing.assert_close(back, expected)


def stage_of(model, data, **changes):
    options = SpatialOptions(
        **{**{f: getattr(QUICK, f) for f in QUICK.__dataclass_fields__}, **changes}
    )
    return options.stage(model, data, DetectionEvaluator(), 0)


@pytest.mark.parametrize("seed", [4, 5])  # as it is, and mirrored
def test_places_that_are_learnt_are_objects_and_background(data, seed):
    model = make()
    stage = stage_of(model, data, negatives="random", negatives_per_image=30)
    stage.trainer = None
    image = stage.images[7, seed]
    places = stage.places_of(image)
    assert image.mirrored == bool(seed % 2)
    objects = places.labels < 2
    gt = data.split("train").gt(image.index)
    width = data.split("train").sample(image.index).size[1]
    boxes = gt.boxes.clone()
    if image.mirrored:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    overlap = box_iou(places.windows, boxes)[:, 0]
    assert 1 <= objects.sum() <= 16
    assert (overlap[objects] >= 0.5).all() or objects.sum() == 1  # or the best of the object
    assert (overlap[~objects] < 0.3).all()
    assert (places.labels[objects] == gt.labels[0]).all()
    torch.testing.assert_close(places.boxes[objects], boxes.expand(int(objects.sum()), -1),
                               atol=1e-3, rtol=0)  # fmt: skip
    # what is read of a place is what the model reads there
    views = [v.flip(-1) if image.mirrored else v for v in model.transform(
        data.split("train").sample(image.index)).views[0]]  # fmt: skip
    frames = [f._replace(mirrored=False) for f in image.frames]
    scales = model.scales([model.maps(view) for view in views], frames)
    windows, rows = torch.cat([s.windows for s in scales]), torch.cat([s.rows for s in scales])
    for window, row in zip(places.windows, places.rows, strict=True):
        same = (windows - window).abs().amax(dim=1).argmin()
        torch.testing.assert_close(row, rows[same])


def test_the_most_offending_background_is_taken(data):
    model = make()
    torch.nn.init.normal_(model.head.output("classifier").weight, std=0.5)
    stage = stage_of(model, data, negatives="offending", negatives_per_image=5, pool=None)
    image = stage.images[3, 2]
    places = stage.places_of(image)
    background = places.labels == 2
    everything = stage_of(model, data, negatives="random", negatives_per_image=10_000)
    all_places = everything.places_of(everything.images[3, 2])

    def doubt(some):
        hidden, below = (model.head.layers(rows) for rows in (some.rows, some.below))
        return 1 - model.logits(hidden, below).softmax(dim=1)[some.labels == 2, -1]

    assert background.sum() == 5
    taken, possible = doubt(places), doubt(all_places)
    torch.testing.assert_close(taken.sort().values, possible.sort().values[-5:])


def test_where_not_all_is_annotated_nothing_is_background(data, monkeypatch):
    model = make()
    stage = stage_of(model, data)
    monkeypatch.setattr(stage, "exhaustive", frozenset())
    places = stage.places_of(stage.images[0, 2])
    assert (places.labels < 2).all()
    assert len(places.labels) >= 1


def test_an_object_smaller_than_every_window_has_one_of_them():
    """All windows that hold it whole overlap it alike; the one about its centre is taken."""
    windows = torch.tensor(
        [[x, y, x + 64.0, y + 64] for y in range(0, 48, 16) for x in range(0, 64, 16)]
    )
    gt = torch.tensor([[40.0, 40, 50, 50], [0, 0, 64, 64], [500, 500, 510, 510]])
    matches = with_best(Matcher(0.5, 0.0, 0.3)(windows, gt), windows, gt)
    small = torch.nonzero(matches.is_object & (matches.gt == 0))[:, 0]
    assert len(small) == 1
    centre = (windows[small[0], :2] + windows[small[0], 2:]) / 2
    assert (centre - 45).abs().max() <= 8
    assert (matches.is_object & (matches.gt == 1)).any()
    assert not (matches.is_object & (matches.gt == 2)).any()  # no window sees it


def test_published_batch_norm_stays_as_it_is_while_convolutions_learn(data, tmp_path):
    model = make()
    stage = stage_of(model, data, backpropagate=True, epochs=1, max_steps=1)
    fit(stage, tmp_path)
    norms = [m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) > 10
    assert not any(norm.training for norm in norms)
    assert not torch.equal(
        model.backbone.conv.conv_stem.weight, make().backbone.conv.conv_stem.weight
    )


def test_what_is_no_number_is_told():
    model = make()
    torch.nn.init.constant_(model.head.output("classifier").bias, float("nan"))
    with pytest.raises(TrainingError, match="image noise are not numbers"):
        model.predict([model.transform(IMAGE)])


def test_detectors_of_other_scales_are_not_joined():
    with pytest.raises(UserError, match="must have the same scales"):
        as_one([make(), make(views=ScaledViews([112, 160]))])
    with pytest.raises(UserError, match="from small to large"):
        make(views=ScaledViews([160, 80]))


@pytest.mark.parametrize("negatives", [pytest.param("random", marks=pytest.mark.slow), "offending"])
def test_it_learns_to_detect(data, tmp_path, negatives):
    """Held out, well over chance, with both kinds of negatives; convolutions stay."""
    model = make(combine=NMS())
    before = model.backbone.conv.state_dict()["conv_stem.weight"].clone()
    fit(stage_of(model, data, negatives=negatives), tmp_path)
    assert torch.equal(model.backbone.conv.state_dict()["conv_stem.weight"], before)
    model.eval().prepare(data)
    evaluator = DetectionEvaluator()
    metric = evaluator.metric(2)
    for batch in data.test_dataloader():
        metric.update(model.predict(batch), [s.target for s in batch], [s.index for s in batch])
    assert evaluator.figures(metric, data.class_names)["map"] >= 0.6


def test_several_detectors_are_one():
    one, other = make(), make(num_classes=2)
    torch.nn.init.normal_(other.head.output("classifier").weight, std=0.3)
    sample = one.transform(IMAGE)
    both = as_one([one, other]).predict([sample])[0]
    parts = [m.candidates([sample])[0] for m in (one, other)]
    joint = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
    assert torch.equal(both["boxes"], one.combine(joint)["boxes"])


def test_the_nearest_place_is_the_first_of_equals():
    windows = torch.tensor([[0.0, 0, 10, 10], [8, 0, 18, 10]])
    others = torch.tensor([[-5.0, 0, 15, 10], [5, 0, 25, 10], [0, 0, 10, 10]])
    assert nearest(windows, others).tolist() == [0, 1]


def test_data_without_an_object_is_refused(data, monkeypatch):
    monkeypatch.setattr(type(data.split("train")), "num_objects", 0)
    with pytest.raises(UserError, match="no training image has an object"):
        stage_of(make(), data)
