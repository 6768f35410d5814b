"""Several models as one: the mean of their scores, or the union of their boxes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.combine.nms import Combination, concatenate
from detection.data.module import DataModule
from detection.data.samples import Sample, Transform
from detection.errors import UserError
from detection.training.model import Model, Prediction


class Ensemble(Model):
    """Models of the same classes that look at the same views.

    Args:
        members: at least one.
        combine: of detectors, from the candidates of all members to detections (SPP-net, 4.4: one
            NMS over the boxes of both networks); None: the members' scores are averaged (OverFeat,
            table 2: "7 models").

    Raises:
        UserError: the members differ in what they must have in common.
    """

    def __init__(self, members: Sequence[Model], combine: Combination | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        first = members[0].interface()
        for member in members[1:]:
            other = member.interface()
            for key in first.keys() | other.keys():
                if first.get(key) != other.get(key):
                    raise UserError(
                        f"the models of an ensemble must have the same {key}, and here are "
                        f"{first.get(key)} and {other.get(key)}"
                    )
        self.combine = combine
        self.num_classes = members[0].num_classes
        self.tasks = members[0].tasks

    @property
    def first(self) -> Model:
        """A member; what it prepares and transforms serves all."""
        member = self.members[0]
        assert isinstance(member, Model)
        return member

    @property
    def transform(self) -> Transform:
        """The members': they look at the same views."""
        return self.first.transform

    def prepare(self, data: DataModule) -> None:
        """Once for all members."""
        self.first.prepare(data)

    def sample(self, image: Tensor, name: str = "", index: int = 0) -> Sample:
        """Once for all members."""
        return self.first.sample(image, name, index)

    def interface(self) -> dict[str, object]:
        """That of its members."""
        return self.first.interface()

    def predict(self, batch: Sequence[Sample]) -> list[Prediction]:
        """Combined boxes, or mean scores, or what the members' kind makes of them."""
        members = [m for m in self.members if isinstance(m, Model)]  # all are
        joint = self.first.jointly(members, batch)
        if joint is not None:
            return joint
        found = [member.candidates(batch) for member in members]
        by_image = list(zip(*found, strict=True))
        if self.combine is not None:
            return [self.combine(concatenate(parts)) for parts in by_image]
        return [
            {"scores": torch.stack([p["scores"] for p in parts]).mean(dim=0)} for parts in by_image
        ]


def as_one(models: Sequence[Model]) -> Model:
    """The model itself, or the ensemble of several."""
    return models[0] if len(models) == 1 else Ensemble(models, models[0].combination)
