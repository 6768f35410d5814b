"""A localiser: a box for each of the classes that are asked for, whoever names them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from detection.classification.classifier import Classifier
from detection.classification.views import ViewSet
from detection.combine.nms import Combination, Detections, best_of_each_class, concatenate
from detection.data.module import DataModule
from detection.data.samples import Sample, Transform
from detection.disk.checkpoints import Checkpoint, read_checkpoint, restore_model
from detection.errors import UserError
from detection.localization.views import LocalizerViews, SideBySide
from detection.training.ensemble import as_one
from detection.training.model import Model, Prediction, check_numbers

Rank = Literal["boxes", "classes"]


@dataclass(frozen=True)
class Reading:
    """What a localiser saw in an image, before anybody asks for a class.

    Attributes:
        scores: (C,) of the classes, by its own classifier; None where it has none.
        classes: those that it would look for itself, best first.
        candidates: from classes (k,) to all boxes of them in the image, with scores, flat.
    """

    scores: Tensor | None
    classes: Tensor
    candidates: Callable[[Tensor], Detections]


class Localizer(Model):
    """Images → `labels` (k,), `boxes` (k, 4), `scores` (k,), a class each, best first.

    Where a sample says its label, the prediction brings `true_box` (4,) too, the box for that
    class, whatever the classes that were guessed. A subclass reads an image (`read`).

    Args:
        num_classes: C.
        views: how an image is looked at.
        top_k: guesses an image.
        combine: from the candidates of a class to its box: accumulation, NMS, voting.
        rank: the guesses are in the order of their boxes' scores ("boxes": OverFeat, 4.3), or of
            the classes' in the image.
        classes: run, or runs, of classifiers that name the classes in place of the localiser's own.
        class_views: of those; None: as they were trained.

    Raises:
        UserError: a classifier cannot be read, or is for other classes.
    """

    tasks = ("localization",)

    def __init__(
        self,
        num_classes: int,
        views: LocalizerViews,
        *,
        top_k: int = 5,
        combine: Combination,
        rank: Rank = "boxes",
        classes: str | Sequence[str] | None = None,
        class_views: ViewSet | None = None,
    ) -> None:
        super().__init__()
        if top_k < 1:
            raise UserError(f"top_k={top_k}: at least one guess is made")
        self.num_classes = num_classes
        self.views = views
        self.top_k = min(top_k, num_classes)
        self.combine = combine
        self.rank: Rank = rank
        # in a tuple: it is no part of this model, its weights stay where they are
        self._namer: tuple[Model, ...] = ()
        self.named_by: Sequence[str] = [classes] if isinstance(classes, str) else (classes or [])
        self.class_names: list[str] = []  # of those classifiers, as they were trained
        if self.named_by:
            contents = [read_checkpoint(name) for name in self.named_by]
            self._namer = (as_one([with_views(content, class_views) for content in contents]),)
            self.class_names = contents[0]["class_names"]
            for name, content in zip(self.named_by, contents, strict=True):
                check_same_classes(content["class_names"], self.class_names, f"classes={name}")

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "Localizer":
        """Move the classifier that names the classes along, as PyTorch moves modules."""
        for namer in self._namer:
            namer._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def read(self, sample: Sample) -> Reading:
        """What is seen in an image, from the first kind of its views."""
        raise TypeError(f"{type(self).__name__} does not say how it reads an image")

    @property
    def namer(self) -> Model | None:
        """The classifier that names the classes; None: what was read does."""
        return self._namer[0] if self._namer else None

    # The contract of a model

    @property
    def transform(self) -> Transform:
        """Its views, and those of the classifier that names the classes."""
        return SideBySide(self.views, self.namer.transform) if self.namer else self.views

    def prepare(self, data: DataModule) -> None:
        """Check that the classifiers are for the data's classes.

        Raises:
            UserError: they are not; names the first that differ.
        """
        super().prepare(data)
        if self.named_by:
            check_same_classes(self.class_names, data.class_names, f"classes={self.named_by[0]}")

    @torch.no_grad()
    def predict(self, batch: Sequence[Sample]) -> list[Prediction]:
        """See the class."""
        return self.jointly([self], batch)

    @torch.no_grad()
    def jointly(self, members: Sequence[Model], batch: Sequence[Sample]) -> list[Prediction]:
        """The boxes of all members as if they were of one, for the classes that they name together.

        The first says who else names the classes, and how boxes are combined.
        """
        localizers = [member for member in members if isinstance(member, Localizer)]  # all are
        # classes= names the same for all; else each member's own classifier has a voice
        naming = [self] if self.named_by else localizers
        named = zip(*(member.name_classes(batch) for member in naming), strict=True)
        found = []
        for sample, voices in zip(batch, named, strict=True):
            scores = [voice for voice in voices if voice is not None]
            mean = torch.stack(scores).mean(dim=0) if scores else None
            found.append(self.locate([m.read(sample) for m in localizers], mean, sample))
        return found

    def name_classes(self, batch: Sequence[Sample]) -> list[Tensor | None]:
        """(C,) scores of the classes of each image by `namer`; None without any."""
        if self.namer is None:
            return [None] * len(batch)
        theirs = [replace(sample, views=sample.views[1:]) for sample in batch]
        return [prediction["scores"] for prediction in self.namer.predict(theirs)]

    def locate(
        self, readings: Sequence[Reading], named: Tensor | None, sample: Sample
    ) -> Prediction:
        """The guesses for an image.

        Args:
            readings: of this localiser, or of several of an ensemble.
            named: (C,) scores of the classes by `namer`; None: by the readings.
            sample: may say its label.

        Raises:
            TrainingError: a score or a box is not a number.
        """
        own = [reading.scores for reading in readings if reading.scores is not None]
        scores = torch.stack(own).mean(dim=0) if named is None else named
        if named is None:
            wanted = torch.cat([reading.classes for reading in readings])
        else:
            wanted = named.topk(self.top_k).indices
        true = sample.target.get("label")
        asked = wanted if true is None else torch.cat([wanted, true.to(wanted)[None]])
        asked = asked.unique()
        found = concatenate([reading.candidates(asked) for reading in readings])
        check_numbers(sample.image_id, scores, found["scores"], found["boxes"])
        kept = best_of_each_class(self.combine)(found)
        guesses = {key: value[torch.isin(kept["labels"], wanted)] for key, value in kept.items()}
        by = guesses["scores"] if self.rank == "boxes" else scores[guesses["labels"]]
        order = by.argsort(descending=True, stable=True)[: self.top_k]
        prediction = {key: value[order] for key, value in guesses.items()}
        if true is not None:
            prediction["true_box"] = kept["boxes"][kept["labels"] == true.to(asked)][0]
        return prediction

    def interface(self) -> dict[str, object]:
        """Members of an ensemble look at the same views."""
        others = {"scales": self.views.settings(), "classes": list(self.named_by)}
        return super().interface() | others


def with_views(content: Checkpoint, views: ViewSet | None) -> Model:
    """A classifier of a checkpoint, perhaps with other test-time views.

    Raises:
        UserError: it is a model of another kind.
    """
    model = restore_model(content)
    if not isinstance(model, Classifier):
        raise UserError("classes= names a model that is no classifier")
    if views is not None:
        model.look_at(views)
    return model


def check_same_classes(given: Sequence[str], wanted: Sequence[str], source: str) -> None:
    """Check that a classifier is for the same classes, in the same order.

    Raises:
        UserError: it is not; names the first that differ.
    """
    if list(given) == list(wanted):
        return
    pairs = zip(given, wanted, strict=False)
    differ = next(((n, a, b) for n, (a, b) in enumerate(pairs) if a != b), None)
    what = (
        f"class {differ[0]} is {differ[1]!r} there and {differ[2]!r} here"
        if differ
        else f"it has {len(given)} classes, and here are {len(wanted)}"
    )
    raise UserError(f"{source}: the classifier is for other classes: {what}")
