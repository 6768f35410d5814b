"""What the gallery shows, and the tables."""

import torch

from detection.evaluation.detection import ap_table
from detection.metrics import ILSVRCDetectionMAP, VOCMeanAveragePrecision
from detection.metrics.voc_ap import curves_of
from detection.report.gallery import best_f1_score, boxes_at_precision, boxes_to_show, f1

GT = torch.tensor(
    [[0, 0, 0, 0, 0, 10, 10], [0, 0, 0, 50, 50, 60, 60], [1, 0, 1, 0, 0, 10, 10]],
    dtype=torch.double,
)
DETECTIONS = torch.tensor(
    [[0, 0, 0.9, 0, 0, 10, 10], [0, 0, 0.8, 20, 20, 30, 30], [1, 0, 0.95, 0, 0, 10, 10]],
    dtype=torch.double,
)


def test_right_false_and_missed_boxes():
    """The difficult hit of image 1 is not shown; the false one of image 0 scores too little."""
    match_detections = VOCMeanAveragePrecision(num_classes=1).match
    curves = curves_of(DETECTIONS, GT, 1, match_detections(DETECTIONS, GT))
    assert best_f1_score(curves[0]) == 0.9
    first, second = boxes_to_show(2, (DETECTIONS, GT), curves, match_detections)
    assert [(b.kind, b.box) for b in first] == [
        ("right", (0, 0, 10, 10)),
        ("missed", (50, 50, 60, 60)),
    ]
    assert second == []
    assert f1(first) == 2 / 3
    assert f1([]) == 1.0


def test_boxes_at_a_precision_above_a_half():
    """A right detection before two false ones: precisions 1, 1/2 and 1/3; a half is not above."""
    gt = torch.tensor([[0, 0, 0, 0, 0, 10, 10]], dtype=torch.double)
    places = [(0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50)]
    scores = (0.9, 0.8, 0.7)
    rows = [[0, 0, s, *box] for s, box in zip(scores, places, strict=True)]
    detections = torch.tensor(rows, dtype=torch.double)
    match_detections = VOCMeanAveragePrecision(1).match
    curves = curves_of(detections, gt, 1, match_detections(detections, gt))
    (boxes,) = boxes_at_precision(1, (detections, gt), curves, match_detections)
    assert [(b.kind, b.score) for b in boxes] == [("right", 1.0)]
    detections[0, 2] = 0.75  # now the right one is second: precisions 0, 1/2, 1/3
    curves = curves_of(detections, gt, 1, match_detections(detections, gt))
    (boxes,) = boxes_at_precision(1, (detections, gt), curves, match_detections)
    assert [b.kind for b in boxes] == ["missed"]


def test_a_duplicate_is_false_whatever_the_precision_says():
    """Precision does not fall with the score alone: 1/3 at the hit, 2/4 ... 5/7 further down.

    The hit at 0.7 is not shown, its duplicate at 0.2 is: false, and the object counts as missed.
    """
    objects = [[0, 0, 0, 100 * n, 0, 100 * n + 10, 10] for n in range(6)]
    gt = torch.tensor(objects, dtype=torch.double)
    boxes = [(900, 900, 910, 910), (900, 800, 910, 810), (0, 0, 10, 10)]  # false, false, hit
    boxes += [(100 * n, 0, 100 * n + 10, 10) for n in range(1, 6)] + [(0, 0, 10, 10)]
    scores = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.35, 0.3, 0.2]
    rows = [[0, 0, s, *box] for s, box in zip(scores, boxes, strict=True)]
    detections = torch.tensor(rows, dtype=torch.double)
    match_detections = VOCMeanAveragePrecision(1).match
    curves = curves_of(detections, gt, 1, match_detections(detections, gt))
    (shown,) = boxes_at_precision(1, (detections, gt), curves, match_detections)
    at_first = [b.kind for b in shown if b.box == (0, 0, 10, 10)]
    assert at_first == ["false", "missed"]


def test_boxes_are_judged_as_the_figures_are():
    """A 10×10 object detections with an IoU of a third: enough in DET, a miss in VOC."""
    gt = torch.tensor([[0, 0, 0, 0, 0, 10, 10]], dtype=torch.double)
    detections = torch.tensor([[0, 0, 0.9, 0, 0, 10, 30]], dtype=torch.double)
    for metric, want in ((ILSVRCDetectionMAP(1), ["right"]),
                         (VOCMeanAveragePrecision(1), ["false", "missed"])):  # fmt: skip
        match_detections = metric.match
        curves = curves_of(detections, gt, 1, match_detections(detections, gt))
        (boxes,) = boxes_to_show(1, (detections, gt), curves, match_detections)
        assert [b.kind for b in boxes] == want


def test_table_shows_the_published_figure_beside_the_measured_one():
    figures = {"map": 0.5, "map_area": 0.51, "map_11point": 0.5, "ap/cat": 0.5, "ap_median": 0.5}
    measured = {f"test/{name}": value for name, value in figures.items()}
    table = ap_table(figures, ["cat"], "11point")
    text = table.text({**measured, "published/test/map": 0.592})
    assert "published" in text
    assert "59.2" in text
    assert text.count("mean") == 2  # one of each protocol
    assert "published" not in table.text(measured)


def test_table_tells_which_classes_are_left_out_and_which_count_as_nothing():
    figures = {"map": 0.25, "map_area": 0.25, "map_11point": 0.25, "ap_median": 0.25,
               "ap/cat": 0.5, "ap/cow": 0.0, "ap/dog": float("nan")}  # fmt: skip
    measured = {f"test/{name}": value for name, value in figures.items()}
    names = ["cat", "cow", "dog"]
    text = " ".join(ap_table(figures, names, "area", ["cow"]).text(measured).split())
    assert "mean over 2 of 3 classes; no object in the test images of dog" in text
    assert "nothing was detected of 1 classes, which count as 0" in text
    assert text.endswith("cow")
    assert "classes" not in ap_table(figures | {"ap/dog": 0.0}, names, "area").text(measured)
