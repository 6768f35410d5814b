"""OverFeat's accumulation against the loop that its section 4.3 describes; box voting."""

from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detection.combine.accumulation import Accumulation
from detection.combine.nms import NMS, no_detections
from detection.combine.voting import BoxVoting


def match_score(a, b, options):
    """Distance of centres and what is not shared, in units of the boxes."""
    area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    mean = sqrt(sum(area) / 2)
    if mean == 0:
        return float("inf")
    x, y = ((a[0] + a[2] - b[0] - b[2]) / 2), ((a[1] + a[3] - b[1] - b[3]) / 2)
    away = sqrt(x**2 + y**2)
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0) / max(area)
    return options.distance_weight * away / mean + options.intersection_weight * (1.0 - shared)


def naive(candidates, options):
    """All pairs, again and again."""
    found = []
    labels = candidates["labels"].tolist()
    for label in sorted(set(labels)):
        rows = [n for n, y in enumerate(labels) if y == label and candidates["scores"][n] > 0]
        things = sorted(
            (*candidates["boxes"][n].double().tolist(), float(candidates["scores"][n]), 1)
            for n in rows
        )
        while len(things) > 1:
            pairs = [
                (match_score(things[i], things[j], options), i, j)
                for i in range(len(things))
                for j in range(i + 1, len(things))
            ]
            least, i, j = min(pairs)
            if least > options.max_match_score:
                break
            one, other = things[i], things.pop(j)
            own, others = (one[5], other[5]) if options.weighted else (1.0, 1.0)
            mean = [(own * one[k] + others * other[k]) / (own + others) for k in range(4)]
            things[i] = (*mean, one[4] + other[4], one[5] + other[5])
        found += [(label, *thing) for thing in things]
    found.sort(key=lambda row: -row[5])
    return found


def drawn(seed, count, classes, grid):
    """Boxes on a coarse grid, so that many are equal and many match alike."""
    generator = np.random.default_rng(seed)
    corner = generator.integers(0, 8, (count, 2)) * grid
    side = generator.integers(0 if seed % 5 == 0 else 1, 5, (count, 2)) * grid
    boxes = torch.from_numpy(np.concatenate([corner, corner + side], 1)).float()
    scores = torch.from_numpy(generator.integers(-1, 4, count) / 4.0).float()
    labels = torch.from_numpy(generator.integers(0, classes, count))
    return {"boxes": boxes, "scores": scores, "labels": labels}


OPTIONS = [
    Accumulation(max_per_image=None),
    Accumulation(max_match_score=1.2, max_per_image=None),  # boxes apart are joined too
    Accumulation(max_match_score=0.8, distance_weight=0.3, weighted=True, max_per_image=None),
]


@settings(max_examples=1500, deadline=None)
@given(
    seed=st.integers(0, 2**31), count=st.integers(0, 24), classes=st.integers(1, 3),
    grid=st.sampled_from([10.0, 7.3]), number=st.integers(0, 2),
)  # fmt: skip
def test_it_is_the_naive_loop_whatever_the_order(seed, count, classes, grid, number):
    options, candidates = OPTIONS[number], drawn(seed, count, classes, grid)
    wanted = naive(candidates, options)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    for given_so in (candidates, {k: v[order] for k, v in candidates.items()}):
        found = options(given_so)
        assert found["labels"].tolist() == [row[0] for row in wanted]
        boxes = torch.tensor([row[1:5] for row in wanted]).reshape(-1, 4)
        assert torch.equal(found["boxes"], boxes.float())
        assert torch.equal(found["scores"], torch.tensor([row[5] for row in wanted]))


def test_many_that_agree_outweigh_one_that_is_sure():
    """The paper's claim (4.3), which suppression does not have."""
    near = torch.tensor([[10.0, 10, 50, 50]]) + torch.arange(4.0)[:, None]
    candidates = {
        "boxes": torch.cat([near, torch.tensor([[200.0, 200, 240, 240]])]),
        "scores": torch.tensor([0.4, 0.4, 0.4, 0.4, 0.9]),
        "labels": torch.zeros(5, dtype=torch.long),
    }
    found = Accumulation()(candidates)
    assert found["scores"].tolist() == pytest.approx([1.6, 0.9])
    assert found["boxes"][0].tolist() == [11.5, 11.5, 51.5, 51.5]
    assert NMS()(candidates)["scores"][0] == pytest.approx(0.9)


def test_limits_and_nothing():
    candidates = drawn(3, 200, 4, 30.0)
    assert len(Accumulation(max_per_image=5)(candidates)["boxes"]) == 5
    of_class = Accumulation(max_per_class=2)(candidates)["labels"].bincount()
    assert of_class.max() <= 2
    for combine in (Accumulation(), BoxVoting()):
        empty = combine(no_detections())
        assert empty["boxes"].shape == (0, 4)
        assert empty["labels"].dtype == torch.long


def test_voting_moves_a_box_to_the_mean_of_its_voters():
    candidates = {
        "boxes": torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 6], [0, 0, 10, 4]]),
        "scores": torch.tensor([0.6, 0.3, 0.9, 0.5]),
        "labels": torch.tensor([0, 0, 1, 0]),
    }
    found = BoxVoting()(candidates)
    assert found["labels"].tolist() == [1, 0]  # scores as suppression has them
    assert found["boxes"][0].tolist() == pytest.approx([0, 0, 10, 6])  # another class has no vote
    expected = (0.6 * 10 + 0.3 * 8) / 0.9  # 0.4 of the box is too little to vote
    assert found["boxes"][1].tolist() == pytest.approx([0, 0, 10, expected])


def test_voting_keeps_all_bits_of_corners_where_inference_has_few():
    box = [[600.3, 2.7, 611.9, 33.3]]
    candidates = {
        "boxes": torch.tensor(box), "scores": torch.tensor([0.3]), "labels": torch.tensor([0]),
    }  # fmt: skip
    with torch.autocast("cpu", torch.bfloat16):
        found = BoxVoting()(candidates)
    torch.testing.assert_close(found["boxes"], torch.tensor(box))


def test_voting_of_margins_below_zero_leaves_boxes_alone():
    candidates = {
        "boxes": torch.tensor([[0.0, 0, 10, 10]]),
        "scores": torch.tensor([-0.5]),
        "labels": torch.tensor([0]),
    }
    assert BoxVoting()(candidates)["boxes"].tolist() == [[0, 0, 10, 10]]
