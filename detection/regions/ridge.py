"""Ridge regression of box transforms on features (R-CNN, appendix C, and its code)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

EIGENVALUE_FLOOR = 0.001  # rcnn_train_bbox_regressor.m adds it before the roots


def whitening(targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (4,), whitening (4, 4) and its inverse (4, 4) of some targets.

    `(targets - mean) @ whiten` has unit covariance (nearly), and `@ unwhiten` takes it back. The
    paper leaves this out; the original code does it.

    Args:
        targets: (n, 4) double, n > 0.
    """
    mean = targets.mean(dim=0)
    centred = targets - mean
    values, vectors = torch.linalg.eigh(centred.t() @ centred / len(targets))
    root = (values.clamp(min=0) + EIGENVALUE_FLOOR).sqrt()
    return mean, vectors / root @ vectors.t(), vectors * root @ vectors.t()


def fit_ridge(
    blocks: Sequence[Callable[[], Tensor]], targets: Tensor, ridge: float, scale: float
) -> tuple[Tensor, Tensor]:
    """Weights (4, D) and biases (4,) that predict box transforms from unscaled features.

    Minimises the sum of squared errors of the whitened targets plus `ridge` times the squared
    weights, the bias (a constant feature of 1) included.

    Args:
        blocks: each gives (n', D) features when called, n > 0 rows in all; they may lie on disk.
        targets: (n, 4).
        ridge: lambda.
        scale: factor on the features.
    """
    mean, whiten, unwhiten = whitening(targets.double())
    white = (targets.double() - mean) @ whiten
    dimensions = blocks[0]().shape[1] + 1
    solve = solve_dual if len(targets) < dimensions else solve_primal
    with torch.autocast("cpu", enabled=False):  # a stage in mixed precision would round the sums
        solution = solve([with_constant(b, scale) for b in blocks], white, ridge) @ unwhiten
    return (solution[:-1] * scale).t().float(), (solution[-1] + mean).float()


def with_constant(block: Callable[[], Tensor], scale: float) -> Callable[[], Tensor]:
    """Makes scaled float32 rows with a 1 after them, when called."""

    def rows() -> Tensor:
        features = block().float() * scale
        return torch.cat([features, torch.ones(len(features), 1)], dim=1)

    return rows


def solve_primal(blocks: Sequence[Callable[[], Tensor]], white: Tensor, ridge: float) -> Tensor:
    """(D + 1, 4) by the normal equations, summed block by block: for many examples."""
    gram: Tensor | None = None
    cross = torch.zeros((), dtype=torch.double)
    start = 0
    for block in blocks:
        rows = block()
        products = rows.t() @ rows
        gram = products.double() if gram is None else gram.add_(products)  # 1.3 GB for SPP-net
        cross = cross + rows.t().double() @ white[start : start + len(rows)]
        start += len(rows)
    assert gram is not None
    gram.diagonal().add_(ridge)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(gram))


def solve_dual(blocks: Sequence[Callable[[], Tensor]], white: Tensor, ridge: float) -> Tensor:
    """(D + 1, 4) by the (n, n) kernel of the examples: for fewer examples than features."""
    rows = torch.cat([block() for block in blocks])
    kernel = (rows @ rows.t()).double()
    kernel.diagonal().add_(ridge)
    return rows.t().double() @ torch.cholesky_solve(white, torch.linalg.cholesky(kernel))
