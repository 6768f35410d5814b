"""SVMs trained side by side."""

import pytest
import torch

from detection.regions import svm_solver
from detection.regions.row_files import RowFiles
from detection.regions.svm import SVMOptions
from detection.regions.svm_solver import Problem, solve, solve_all

OPTIONS = SVMOptions(1e-3, 2.0, 10.0, 0.1, 1000)


@pytest.mark.slow
def test_processes_find_what_one_finds(tmp_path, monkeypatch):
    """To the bit: liblinear's random order is that of the seed, whoever works beside it."""
    monkeypatch.setattr(svm_solver, "SMALL", 0)
    rows = RowFiles(tmp_path, 0, 30)
    generator = torch.Generator().manual_seed(0)
    ids = [rows.append(torch.randn(n, 30, generator=generator).relu() * 4) for n in (40, 500) * 3]
    problems = [Problem(rows, ids[k], ids[k + 1]) for k in (0, 2, 4)]
    alone = [solve(p, OPTIONS, 1) for p in problems]
    together = solve_all(problems, OPTIONS, 1, max_bytes=1e9, processes=2)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.weight, b.weight)
        assert torch.equal(a.bias, b.bias)
        assert len(a.scores) == 500
    features = rows.read(ids[1]).float()
    expected = features @ alone[0].weight + alone[0].bias
    torch.testing.assert_close(torch.from_numpy(alone[0].scores).float(), expected)


def test_classes_that_do_not_fit_wait(tmp_path, monkeypatch):
    """As many at a time as fit, but always one."""
    seen = []

    def parallel(n_jobs):
        seen.append(n_jobs)
        return lambda tasks: [f(*a) for f, a, _ in tasks]

    monkeypatch.setattr(svm_solver, "SMALL", 0)
    monkeypatch.setattr(svm_solver, "Parallel", parallel)
    rows = RowFiles(tmp_path, 0, 10)
    ids = rows.append(torch.rand(20, 10))
    problems = [Problem(rows, ids[:5], ids[5:])] * 4  # 200 numbers, 2,800 bytes each
    for max_bytes in (1e9, 3 * 2800, 1):
        solve_all(problems, OPTIONS, 1, max_bytes, processes=8)
    assert seen == [4, 3, 1]
