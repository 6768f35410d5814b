"""What is told of the data before anything is trained."""

import logging
from types import SimpleNamespace

import pytest
import torch
from small_spp import small

from detection.data.box_summary import object_shares
from detection.data.detection import DetectionSplit
from detection.data.voc.annotation import VOCObject
from detection.data.voc.folder import VOCFolder
from detection.regions.advice import tell_advice
from detection.regions.proposing import tell_recall
from detection.sppnet.features import SPPFeatures


@pytest.fixture
def split(fake_voc):
    """Objects of 20 and 10 pixels a side in images of 40, and an image without any."""
    fake_voc.add("a", [VOCObject("cat", (0, 0, 20, 20)), VOCObject("cat", (5, 5, 15, 15))])
    fake_voc.add("b", [])
    fake_voc.add("c", [VOCObject("cat", (0, 0, 40, 10))], size=(80, 40))
    return DetectionSplit(VOCFolder(fake_voc.root), ["a", "b", "c"], ["cat"])


def test_sides_are_shares_of_images(split):
    assert object_shares(split).tolist() == pytest.approx([0.5, 0.25, 0.5])


@pytest.mark.parametrize(("scale", "said"), [(320, ""), (160, "smaller than 80"), (960, "larger")])
def test_another_scale_is_advised(split, caplog, scale, said):
    """The median object fills half of its image: 160 pixels of a shorter side of 320."""
    features = SPPFeatures(small(), levels=[2, 1], scales_px=[scale])
    with caplog.at_level(logging.INFO):
        tell_advice(features, SimpleNamespace(splits={"train": split}))
    assert (said in caplog.text) if said else not caplog.text
    if said:
        assert "try model.features.scales_px=[320]" in caplog.text


def test_several_scales_need_no_advice():
    features = SPPFeatures(small(), levels=[2, 1], scales_px=[100, 700])
    assert features.advice(torch.full((9,), 0.1)) == ""


def test_little_recall_is_a_warning(caplog):
    recall = SimpleNamespace(
        at=lambda iou: 0.5, boxes_per_image=3.0, mabo=0.4, figures=dict
    )  # of a search that found little
    with caplog.at_level(logging.INFO):
        tell_recall("mine train", recall, "a smaller min_side_px")
        tell_recall("mine test", recall, None)
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "min_side_px" in warnings[0].getMessage()
