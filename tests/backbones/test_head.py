"""fc6 and fc7 of lower rank, against the singular value decomposition."""

import pytest
import torch
from torch import nn

from detection.backbones.head import Factored, FullyConnected, Head
from detection.errors import UserError


def head(in_features=4 * 3 * 3, hidden=(20, 12)):
    torch.manual_seed(0)
    fc = FullyConnected(nn.Linear(in_features, hidden[0]), nn.Linear(*hidden), False)
    return Head(in_features, fc, {"classifier": ("fc7", 5)})


@pytest.mark.parametrize("shape", [(50, 30), (30, 50)])
def test_a_factored_layer_is_the_truncated_decomposition(shape):
    torch.manual_seed(1)
    linear = nn.Linear(*shape)
    u, s, vh = torch.linalg.svd(linear.weight.detach(), full_matrices=False)
    expected = u[:, :7] * s[:7] @ vh[:7]
    features = torch.randn(9, shape[0])
    found = Factored(linear, 7)(features)
    torch.testing.assert_close(found, features @ expected.T + linear.bias, atol=1e-5, rtol=1e-5)


def test_ranks_count_multiplications_and_what_is_no_faster_stays():
    whole, factored = head(), head()
    pooled = torch.rand(6, 36)
    factored.factor([13, 8])  # 13 (36 + 20) > 36 · 20, 8 (20 + 12) > 20 · 12
    assert isinstance(factored.fc6, nn.Linear)
    torch.testing.assert_close(factored(pooled, "classifier"), whole(pooled, "classifier"))
    factored.factor([5, 3])
    assert sum(p.numel() for p in factored.fc6.parameters()) == 5 * (36 + 20) + 20
    assert factored.width("fc6") == 20
    assert factored.width("pool5") == 36


def test_a_factored_head_slides_as_it_reads_one_window():
    factored = head()
    factored.factor([6, 4])
    maps = torch.rand(2, 4, 5, 4)
    slid = factored.slide(maps, 3, "classifier")
    assert slid.shape == (2, 5, 3, 2)
    window = maps[1, :, 2:5, 1:4].flatten()[None]
    torch.testing.assert_close(slid[1, :, 2, 1], factored(window, "classifier")[0])


def test_a_head_without_such_layers_says_so():
    with pytest.raises(UserError, match="this one has none"):
        Head(8, None, {"classifier": ("pool5", 3)}).factor([2, 2])
