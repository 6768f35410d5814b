"""Several classifiers as one: the mean of their scores (OverFeat, table 2: "7 models")."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.classification.classifier import Classifier
from detection.classification.views import ViewSet
from detection.errors import UserError


class Committee(nn.Module):
    """Classifiers of the same classes, each tested on the same views.

    Args:
        members: the classifiers.

    Raises:
        UserError: they are of different numbers of classes.
    """

    def __init__(self, members: Sequence[Classifier]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        counts = sorted({m.num_classes for m in members})
        if len(counts) > 1:
            raise UserError(f"ckpt= names classifiers of different numbers of classes: {counts}")

    def scores(self, views: ViewSet, images: Sequence[Sequence[Sequence[Tensor]]]) -> Tensor:
        """(B, K) mean scores of images' views; see `ViewSet.scores`."""
        return torch.stack([views.scores(m, images) for m in self.members]).mean(dim=0)
