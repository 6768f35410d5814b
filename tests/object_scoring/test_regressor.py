"""The regressors on scores: what is normalised, and what is a class's own."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detection.object_scoring.regressor import ScoreRegressor


def make(**changes):
    torch.manual_seed(0)
    options = {"class_wise": True, "normalization": "standard"}
    model = ScoreRegressor(14, (8, 6), 4, **{**options, **changes})
    torch.nn.init.normal_(model.shared[-1].weight)
    return model


def test_a_fresh_regressor_says_about_the_whole_grid():
    said = ScoreRegressor(14, (8,), 4, True, "standard")(torch.randn(5, 14), torch.zeros(5).long())
    torch.testing.assert_close(said, torch.tensor([0.0, 0, 1, 1]).repeat(5, 1), atol=0.2, rtol=0)


@given(st.floats(-20, 20), st.floats(0.1, 30))
def test_only_the_pattern_of_scores_counts(shift, scale):
    model, scores = make(), torch.randn(3, 14, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(
        model(scores * scale + shift, labels), model(scores, labels), rtol=1e-3, atol=1e-3
    )


def test_what_is_normalised():
    scores = torch.tensor([[3.0, 4.0], [2.0, 2.0]])
    kinds = {"none": [[3, 4], [2, 2]], "l2": [[0.6, 0.8], [0.5**0.5] * 2],
             "standard": [[-1, 1], [0, 0]]}  # fmt: skip
    for kind, expected in kinds.items():
        found = ScoreRegressor(2, (), 1, False, kind).normalized(scores)
        torch.testing.assert_close(found, torch.tensor(expected).float())


def test_classes_begin_at_the_shared_solution_and_part_from_it():
    model, scores = make(), torch.randn(6, 14)
    labels = torch.tensor([0, 1, 2, 3, 1, 1])
    shared = model(scores, labels)
    model.start_classes(torch.tensor([1, 3]))
    torch.testing.assert_close(model(scores, labels), shared)
    with torch.no_grad():
        model.biases[-1][1] += 1.0
    difference = (model(scores, labels) - shared).detach()
    expected = (labels == 1).float()[:, None].expand(-1, 4)
    torch.testing.assert_close(difference, expected, atol=1e-5, rtol=0)


def test_classes_side_by_side_are_each_class_alone():
    model = make()
    for part in (*model.weights, *model.biases):
        torch.nn.init.normal_(part)
    scores, labels = torch.randn(3, 5, 14), torch.tensor([2, 0, 3])
    together = model.by_classes(scores, labels)
    for number, label in enumerate(labels.tolist()):
        values = model.normalized(scores[number])
        for weight, bias in zip(model.weights[:-1], model.biases[:-1], strict=True):
            values = (values @ weight[label].T + bias[label]).relu()
        alone = values @ model.weights[-1][label].T + model.biases[-1][label]
        torch.testing.assert_close(together[number], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("hidden", [(), (8,), (8, 6, 4)])
def test_it_takes_nothing_too(hidden):
    model = ScoreRegressor(14, hidden, 4, True, "standard")
    assert model(torch.zeros(0, 14), torch.zeros(0).long()).shape == (0, 4)
