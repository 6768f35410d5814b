"""Ridge regression of box transforms."""

from functools import partial

import pytest
import torch
from sklearn.linear_model import Ridge

from detection.regions.ridge import fit_ridge, whitening


def blocks_of(features):
    """Functions that give four rows each."""
    return [partial(torch.clone, block) for block in features.split(4)]


@pytest.mark.parametrize(("count", "dimensions"), [(200, 7), (9, 40)])
def test_equals_scikit_learn_on_whitened_targets(count, dimensions):
    """Both the primal and the dual way; the constant feature is penalised too."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(count, dimensions, generator=generator)
    targets = torch.randn(count, 4, generator=generator) @ torch.rand(4, 4, generator=generator)
    scale, ridge = 0.5, 3.0
    weight, bias = fit_ridge(blocks_of(features), targets, ridge, scale)
    mean, whiten, unwhiten = whitening(targets.double())
    rows = torch.cat([features * scale, torch.ones(count, 1)], dim=1).double()
    model = Ridge(alpha=ridge, fit_intercept=False)
    model.fit(rows.numpy(), ((targets.double() - mean) @ whiten).numpy())
    want = torch.from_numpy(model.predict(rows.numpy())) @ unwhiten + mean
    torch.testing.assert_close((features @ weight.t() + bias).double(), want, atol=1e-4, rtol=1e-4)


def test_whitened_targets_have_unit_covariance():
    torch.manual_seed(0)
    targets = torch.randn(500, 4, dtype=torch.double) @ torch.rand(4, 4, dtype=torch.double) + 3
    mean, whiten, unwhiten = whitening(targets)
    white = (targets - mean) @ whiten
    # the floor of 0.001 under the eigenvalues makes it a little less than one
    torch.testing.assert_close(white.t() @ white / 500, torch.eye(4).double(), atol=0.2, rtol=0)
    torch.testing.assert_close(white @ unwhiten + mean, targets)


def test_one_example_moves_towards_its_target():
    weight, bias = fit_ridge(
        blocks_of(torch.ones(1, 3)), torch.tensor([[0.1, 0.2, 0.0, 0.0]]), 1000.0, 1.0
    )
    torch.testing.assert_close(weight.sum(dim=1) + bias, torch.tensor([0.1, 0.2, 0.0, 0.0]))


@pytest.mark.parametrize("count", [20, 300])  # fewer and more than the features
def test_mixed_precision_does_not_round_the_sums(count):
    generator = torch.Generator().manual_seed(0)
    rows, targets = (torch.randn(count, n, generator=generator) for n in (50, 4))
    wanted = fit_ridge([lambda: rows], targets, 1.0, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = fit_ridge([lambda: rows], targets, 1.0, 1.0)
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours, theirs)
