"""The outputs of a region proposal network: for each anchor and class a score and a box."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detection.boxes import decode
from detection.combine.nms import Detections

OUTPUT_STD = 0.01  # of fresh outputs (py-faster-rcnn: train.prototxt)


class RPNHead(nn.Module):
    """Two sibling 1×1 convolutions: for each anchor and class a score and a box.

    With 1,000 classes and 9 anchors the boxes alone are 36,000 channels. Nothing here ever computes
    them all: the weights of the classes that are asked for are gathered first.

    Args:
        channels: of the map.
        anchors: A.
        num_classes: C.
        hidden: channels of a 3×3 convolution before them, as the class-agnostic RPN has (Ren et al.
            2015, 3.1); None: none, as appendix C tells.
    """

    def __init__(self, channels: int, anchors: int, num_classes: int, hidden: int | None) -> None:
        super().__init__()
        self.anchors, self.num_classes = anchors, num_classes
        self.hidden = nn.Conv2d(channels, hidden, 3, padding=1) if hidden else None
        width = hidden or channels
        self.score = nn.Conv2d(width, anchors * num_classes, 1)
        self.box = nn.Conv2d(width, anchors * num_classes * 4, 1)
        for layer in (self.hidden, self.score, self.box):
            if layer is not None:
                nn.init.normal_(layer.weight, std=OUTPUT_STD)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def features(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) that both outputs read."""
        return maps if self.hidden is None else F.relu(self.hidden(maps))

    def weights(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights and biases of some classes (k,): (A, k, D), (A, k), (A, k, 4, D), (A, k, 4)."""
        shape = (self.anchors, self.num_classes)
        score, box = self.score.weight.view(*shape, -1), self.box.weight.view(*shape, 4, -1)
        biases = self.score.bias.view(shape), self.box.bias.view(*shape, 4)  # type: ignore[union-attr]
        return score[:, labels], biases[0][:, labels], box[:, labels], biases[1][:, labels]

    def for_classes(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P · A, k) and box codes (P · A, k, 4) of classes (k,) on one map.

        Args:
            features: (1, D, h, w).
            labels: (k,).
        """
        score, score_bias, box, box_bias = self.weights(labels)
        rows = features[0].flatten(1).T  # (P, D)
        count = len(labels)
        logits = F.linear(rows, score.flatten(0, 1), score_bias.flatten())
        codes = F.linear(rows, box.flatten(0, 2), box_bias.flatten())
        return logits.reshape(-1, count), codes.reshape(-1, count, 4)

    def at(self, rows: Tensor, anchor: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (R,) and box codes (R, 4) of single anchors, each of its own class.

        Args:
            rows: (R, D) features of the anchors' cells.
            anchor: (R,) which of the A.
            labels: (R,) classes.
        """
        number = anchor * self.num_classes + labels
        score = self.score.weight.flatten(1)[number]  # (R, D)
        box = self.box.weight.view(-1, 4, score.shape[1])[number]  # (R, 4, D)
        biases = self.score.bias[number], self.box.bias.view(-1, 4)[number]  # type: ignore[index, union-attr]
        logits = (score * rows).sum(dim=1) + biases[0]
        return logits, torch.einsum("rkd,rd->rk", box, rows) + biases[1]

    def best_boxes(
        self, features: Tensor, labels: Tensor, anchors: Tensor, most: int
    ) -> Detections:
        """The boxes of highest score of each class (k,) on one map, flat, class after class.

        Args:
            features: (1, D, h, w).
            labels: (k,).
            anchors: (P · A, 4) of the map.
            most: boxes of a class.
        """
        logits, codes = self.for_classes(features, labels)
        scores = logits.float().sigmoid()  # (N, k)
        best = scores.topk(min(most, len(scores)), dim=0).indices.T  # (k, n)
        column = torch.arange(len(labels), device=labels.device)[:, None]
        return {
            "boxes": decode(anchors[best], codes.float()[best, column]).flatten(0, 1),
            "scores": scores[best, column].flatten(),
            "labels": labels.repeat_interleave(best.shape[1]),
        }
