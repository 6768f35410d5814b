"""From the scores of a grid's squares to a box: a small network, and one of its own a class."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.localization.box_codes import starting_output

Normalization = Literal["standard", "l2", "none"]


class ScoreRegressor(nn.Module):
    """The scores (K,) of a class on the squares → its box, in the frame of the grid.

    The poster calls the scores "normalized" and says no more. Here, image by image, "standard"
    takes their mean away and divides by their deviation, so that only their pattern counts; "l2"
    divides them by their length.

    Args:
        squares: K.
        hidden: outputs of the hidden layers, which a ReLU follows.
        num_classes: C.
        class_wise: room for a regressor of each class's own.
        normalization: see above.
    """

    is_tuned: Tensor

    def __init__(
        self,
        squares: int,
        hidden: Sequence[int],
        num_classes: int,
        class_wise: bool,
        normalization: Normalization,
    ) -> None:
        super().__init__()
        sizes = [squares, *hidden, 4]
        pairs = list(pairwise(sizes))
        layers = [nn.Linear(a, b) for a, b in pairs]
        for layer in layers[:-1]:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        starting_output(layers[-1], "edges")
        self.shared = nn.ModuleList(layers)
        self.class_wise, self.normalization = class_wise, normalization
        classes = num_classes if class_wise else 0
        self.weights = nn.ParameterList(torch.zeros(classes, b, a) for a, b in pairs)
        self.biases = nn.ParameterList(torch.zeros(classes, 1, b) for _, b in pairs)
        self.register_buffer("is_tuned", torch.zeros(num_classes, dtype=torch.bool))

    def normalized(self, scores: Tensor) -> Tensor:
        """(..., K) as the layers read them."""
        if self.normalization == "none":
            return scores
        if self.normalization == "l2":
            return F.normalize(scores, dim=-1)
        # squares that score all the same say nothing: zeros
        centred = scores - scores.mean(dim=-1, keepdim=True)
        return centred / centred.pow(2).mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)

    def forward(self, scores: Tensor, labels: Tensor) -> Tensor:
        """(N, 4) left, top, right, bottom, 0 and 1 at the ends of the grid.

        Args:
            scores: (N, K) of a class each, before softmax.
            labels: (N,) of which class.
        """
        said = self.by_shared(scores)
        own = torch.nonzero(self.is_tuned[labels])[:, 0]
        if len(own):
            mine = self.by_classes(scores[own][:, None], labels[own])[:, 0]
            said = said.index_copy(0, own, mine.to(said.dtype))
        return said

    def by_shared(self, scores: Tensor, dropout: float = 0.0) -> Tensor:
        """(N, 4) what the regressor of all classes says of scores (N, K).

        Args:
            scores: before softmax.
            dropout: of the hidden layers.
        """
        values = self.normalized(scores)
        for layer in self.shared[:-1]:
            values = F.dropout(F.relu(layer(values)), dropout)
        result: Tensor = self.shared[-1](values)
        return result

    def by_classes(self, scores: Tensor, labels: Tensor, dropout: float = 0.0) -> Tensor:
        """(L, N, 4) what the regressors of L classes say of N rows of scores (L, N, K) each.

        Args:
            scores: before softmax.
            labels: (L,) the classes; some may come twice.
            dropout: of the hidden layers.
        """
        values = self.normalized(scores)
        last = len(self.weights) - 1
        for number, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias[labels], values, weight[labels].transpose(1, 2))
            values = F.dropout(F.relu(values), dropout) if number < last else values
        return values

    @torch.no_grad()
    def start_classes(self, labels: Tensor) -> None:
        """Give some classes (L,) regressors of their own, which say what the shared one says."""
        for layer, weight, bias in zip(self.shared, self.weights, self.biases, strict=True):
            weight[labels] = layer.weight
            bias[labels] = layer.bias
        self.is_tuned[labels] = True
