"""What reads pooled features: fc6, fc7, and linear outputs after any of them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.errors import UserError

Layer = Literal["pool5", "fc6", "fc7"]
LAYERS: tuple[Layer, ...] = ("pool5", "fc6", "fc7")
OUTPUT_STD = 0.01  # of fresh softmax outputs (SPP-net, 4.1)


class FullyConnected(NamedTuple):
    """fc6, which reads pooled features, and fc7.

    Attributes:
        fc6: the first.
        fc7: the second.
        pretrained: whether they hold published weights.
    """

    fc6: nn.Linear
    fc7: nn.Linear
    pretrained: bool


class Factored(nn.Module):
    """A linear layer of a lower rank, as two (Fast R-CNN, section 3.1): faster, and not the same.

    W ≈ U (Uᵀ W) = (W V) Vᵀ, where U and V are the first singular vectors of W: the truncated
    singular value decomposition, whose singular values stand in the bracket.

    Args:
        linear: the layer.
        rank: of its weights; multiplications go from in × out to rank × (in + out).
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        # of the smaller Gram matrix: seconds for 4,096 × 12,800, minutes by the SVD itself
        is_wide = linear.in_features >= linear.out_features
        gram = weight @ weight.T if is_wide else weight.T @ weight
        vectors = torch.linalg.eigh(gram.double())[1][:, -rank:].to(weight)  # values ascend
        self.inner = nn.Linear(linear.in_features, rank, bias=False)
        self.outer = nn.Linear(rank, linear.out_features)
        with torch.no_grad():
            self.inner.weight.copy_(vectors.T @ weight if is_wide else vectors.T)
            self.outer.weight.copy_(vectors if is_wide else weight @ vectors)
            self.outer.bias.copy_(linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(R, in) → (R, out)."""
        result: Tensor = self.outer(self.inner(features))
        return result


class Head(nn.Module):
    """Pooled features → fc6 → fc7, and outputs that each read one of these layers.

    The same weights serve one vector at a time (`layers`, `forward`) and, as convolutions, a whole
    map (`slide`: OverFeat, 3.3).

    Args:
        in_features: of the pooled features, "pool5".
        fc: fc6 and fc7; None where outputs read the pooled features themselves (ResNet).
        outputs: by name, the layer that an output reads and its number of channels.

    Attributes:
        pretrained: whether fc6 and fc7 hold published weights.
    """

    def __init__(
        self,
        in_features: int,
        fc: FullyConnected | None,
        outputs: Mapping[str, tuple[Layer, int]],
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.fc6: nn.Linear | Factored | None = fc.fc6 if fc else None
        self.fc7: nn.Linear | Factored | None = fc.fc7 if fc else None
        self.pretrained = fc.pretrained if fc else False
        self.reads = {name: layer for name, (layer, _) in outputs.items()}
        self.outputs = nn.ModuleDict(
            {name: nn.Linear(self.width(layer), size) for name, (layer, size) in outputs.items()}
        )

    @property
    def last(self) -> Layer:
        """The last layer before the outputs."""
        return "fc7" if self.fc7 is not None else "pool5"

    def width(self, layer: Layer) -> int:
        """Numbers in a feature of a layer."""
        if self.fc6 is None or self.fc7 is None:
            return self.in_features
        sizes = (self.fc6.in_features, self.fc6.out_features, self.fc7.out_features)
        return sizes[LAYERS.index(layer)]

    def output(self, name: str) -> nn.Linear:
        """An output's layer."""
        layer = self.outputs[name]
        assert isinstance(layer, nn.Linear)
        return layer

    def layers(
        self,
        features: Tensor,
        upto: Layer = "fc7",
        dropout: float = 0.0,
        since: Layer = "pool5",
        relu: bool = True,
    ) -> Tensor:
        """Activations (R, D) after a layer, from those after an earlier one.

        Args:
            features: (R, D') after `since`.
            upto: the layer that is wanted.
            dropout: after fc6 and fc7. It is drawn whenever this is not 0, in `eval()` too: the
                caller says whether it trains, not the module's mode.
            since: the layer that `features` are of.
            relu: False leaves out the last layer's.
        """
        for layer, name in self._between(since, upto):
            features = layer(features)
            if relu or name != upto:
                features = F.dropout(F.relu(features), dropout)
        return features

    def forward(self, pooled: Tensor, output: str, dropout: float = 0.0) -> Tensor:
        """An output (R, K) from pooled features (R, in_features)."""
        hidden = self.layers(pooled, self.reads[output], dropout)
        return self.output(output)(hidden)  # type: ignore[no-any-return]

    def slide(self, pooled: Tensor, grid: int, upto: str, relu: bool = True) -> Tensor:
        """The same as convolutions: (B, C, h, w) → (B, D, h - grid + 1, w - grid + 1).

        Args:
            pooled: maps from which fc6 reads windows of grid × grid cells.
            grid: side of that window.
            upto: "pool5", "fc6", "fc7", or the name of an output that reads fc7.
            relu: False leaves out that of fc6 or fc7 where it is the last.
        """
        maps, last = pooled, upto if upto in LAYERS else self.reads[upto]
        for layer, name in self._between("pool5", last):  # type: ignore[arg-type]
            side = grid if name == "fc6" else 1
            for part in [layer.inner, layer.outer] if isinstance(layer, Factored) else [layer]:
                kernel = part.weight.view(len(part.weight), -1, side, side)
                maps, side = F.conv2d(maps, kernel, part.bias), 1
            if relu or name != upto:
                maps = F.relu(maps)
        if upto in LAYERS:
            return maps
        output = self.output(upto)
        return F.conv2d(maps, output.weight[:, :, None, None], output.bias)

    def factor(self, ranks: Sequence[int]) -> None:
        """Approximate fc6 and fc7, for tests (see `Factored`); there is no way back.

        Args:
            ranks: of fc6 and fc7; a layer that would be no faster stays as it is.

        Raises:
            UserError: there are no such layers.
        """
        if not (isinstance(self.fc6, nn.Linear) and isinstance(self.fc7, nn.Linear)):
            raise UserError("only a head with fc6 and fc7 can be factored, and this one has none")
        for name, layer, rank in zip(("fc6", "fc7"), (self.fc6, self.fc7), ranks, strict=True):
            if rank * sum(layer.weight.shape) < layer.weight.numel():
                setattr(self, name, Factored(layer, rank))

    def _between(self, since: Layer, upto: Layer) -> list[tuple[nn.Linear | Factored, str]]:
        named = {"fc6": self.fc6, "fc7": self.fc7}
        names = LAYERS[LAYERS.index(since) + 1 : LAYERS.index(upto) + 1]
        return [(layer, name) for name in names if (layer := named[name]) is not None]


def softmax_output(output: nn.Linear) -> None:
    """Initialise a fresh output that a softmax reads: small weights, no bias (SPP-net, 4.1)."""
    nn.init.normal_(output.weight, std=OUTPUT_STD)
    nn.init.zeros_(output.bias)


def as_linear(state: dict[str, Tensor], name: str) -> nn.Linear:
    """A fully connected layer of a state dict."""
    weight = state[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({part: state[f"{name}.{part}"] for part in ("weight", "bias")})
    return layer


def fresh_fully_connected(in_features: int, hidden: int) -> FullyConnected:
    """fc6 and fc7 with random weights (He's), for networks that have none that fit."""
    layers = nn.Linear(in_features, hidden), nn.Linear(hidden, hidden)
    initialize(layers)
    return FullyConnected(*layers, False)


def initialize(parts: Iterable[nn.Module], std: float | None = None) -> None:
    """Random weights and no biases.

    Args:
        parts: to be initialised.
        std: of the weights; None: He's, with which these networks train from nothing without
            batch norm.
    """
    for module in (m for part in parts for m in part.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if std is not None:
                nn.init.normal_(module.weight, std=std)
            else:
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
