"""The classifier that a localiser stands on, as its first stage: learnt, or taken from a run."""

import logging
from dataclasses import dataclass
from typing import Protocol

from torchvision.models import AlexNet_Weights

from detection.classification.classifier import Classifier
from detection.classification.training import ClassificationOptions, ClassificationStage
from detection.data.module import DataModule
from detection.disk.checkpoints import Checkpoint, load_weights, read_checkpoint
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.localization.localizer import check_same_classes
from detection.runtime.distributed import is_first_process

log = logging.getLogger(__name__)


class HasClassifier(Protocol):
    """A model whose maps are a classifier's."""

    classifier: Classifier


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(ClassificationOptions):
    """How a localiser comes by its classifier.

    Attributes:
        ckpt: a trained classifier's run, of the same network and classes, that is taken as it is;
            None: the classifier is trained first, on the same images.
    """

    ckpt: str | None = None

    def stage(  # type: ignore[override]
        self, model: HasClassifier, data: DataModule, evaluator: Evaluator, seed: int = 0
    ) -> "ClassifierStage":
        """The stage that trains so."""
        return ClassifierStage(model.classifier, data, evaluator, seed, options=self)


class ClassifierStage(ClassificationStage):
    """Learns the classifier, unless there is one already.

    Raises:
        UserError: the run that is named has another network, or is for other classes.
    """

    name = "classify"
    options: ClassifierOptions

    def is_needed(self) -> bool:
        """Not where a checkpoint, or a published network for the same classes, brings it."""
        published = self.model.features.backbone.published_classifier
        is_imagenet = self.data.class_names == AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
        if self.options.ckpt is not None:
            content = read_checkpoint(self.options.ckpt)
            source = f"model.stages.classify.ckpt={self.options.ckpt}"
            check_same_classes(content["class_names"], self.data.class_names, source)
            load_classifier(self.model, content, self.options.ckpt)
            taken = f"that of {self.options.ckpt}"
        elif published and is_imagenet:
            taken = "the published network's"
        else:
            taken = "learnt first, on the same images (model.stages.classify.ckpt=RUN takes one)"
        if is_first_process():
            log.info("the classifier is %s", taken)
        return taken.startswith("learnt")


def load_classifier(model: Classifier, content: Checkpoint, source: str) -> None:
    """Take the weights of a classifier's run, or of a run of a localiser that stands on one.

    Raises:
        UserError: it is of another network.
    """
    state = content["state_dict"]
    inner = [key.partition("classifier.")[0] for key in state if "classifier.features." in key]
    if inner:
        prefix = f"{inner[0]}classifier."
        state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    try:
        load_weights(model, {**content, "state_dict": state})
    except UserError:
        raise UserError(
            f"model.stages.classify.ckpt={source}: its network is not the one here: give the run "
            "of a classifier with the same backbone.* (see config.yaml of both), or of a localiser"
        ) from None
