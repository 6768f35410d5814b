"""A trained model in the hands of a person: images in, names, scores and boxes out."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.data.samples import Sample, as_image
from detection.disk.images import read_upright
from detection.errors import UserError
from detection.runs.evaluate import read_all, restore_all
from detection.training.model import Model, Prediction

TOP_K = 5  # guesses of a classifier
MOST = 0.5  # the threshold of a model that was never validated


class Found(NamedTuple):
    """An object in an image, or a guess of what the image shows.

    Attributes:
        name: of its class.
        score: the higher the surer; SVMs' margins are not probabilities.
        box: x1, y1, x2, y2 in pixels, half-open; None of a whole image.
    """

    name: str
    score: float
    box: tuple[float, float, float, float] | None = None


class Predictor:
    """A model with the names of its classes and the scores from which on it is worth hearing.

    `Predictor("runs/<run>")("photo.jpg")` is a list of `Found`, best first.

    Args:
        ckpt: a run's folder, its model.ckpt, or several as one.
        threshold: least score of a detection, of all classes; None: that of each class which was
            best on validation images.
        device: cpu or cuda; None: a GPU where there is one.
        precision: of inference; None: as the model was made.
        svd_rank: of fc6 and fc7 (see `Head.factor`); None: as they are.

    Attributes:
        model: in eval mode, on the device.
        task: "detection", "classification" or "localization".
        class_names: in the order of the labels.
        thresholds: (C,) of a detector.

    Raises:
        UserError: no such model or device.
    """

    def __init__(
        self,
        ckpt: str | Path | Sequence[str],
        *,
        threshold: float | None = None,
        device: str | None = None,
        precision: Any = None,
        svd_rank: Sequence[int] | None = None,
    ) -> None:
        contents = read_all([ckpt] if isinstance(ckpt, str | Path) else ckpt)
        self.device = usable_device(device)
        self.model: Model = (
            restore_all(contents, precision, svd_rank=svd_rank).to(self.device).eval()
        )
        self.task = self.model.tasks[0]
        self.class_names = contents[0]["class_names"]
        kept = contents[0]["thresholds"] if len(contents) == 1 else {}
        self.is_validated = bool(kept) and threshold is None
        self.threshold = threshold
        self.thresholds = thresholds_of(self.class_names, kept, threshold)

    def __call__(self, image: str | Path | NDArray[np.uint8]) -> list[Found]:
        """What is seen in an image file or an (H, W, 3) RGB array, best first.

        Raises:
            UserError: the file cannot be read.
        """
        pixels = image if isinstance(image, np.ndarray) else read_upright(Path(image))
        return self.predict([self.sample(pixels)])[0]

    def sample(self, pixels: NDArray[np.uint8], name: str = "", index: int = 0) -> Sample:
        """An image as the model takes it; threads may do this side by side."""
        image = as_image(pixels).contiguous()
        return self.model.sample(image, name, index)

    @torch.no_grad()
    def predict(self, samples: Sequence[Sample]) -> list[list[Found]]:
        """What is seen in some images, best first."""
        for sample in samples:
            sample.image = sample.image.to(self.device)
            sample.views = [[v.to(self.device) for v in views] for views in sample.views]
        read = {
            "detection": self._objects,
            "localization": self._located,
            "classification": self._guesses,
        }[self.task]
        return [read(prediction) for prediction in self.model.predict(samples)]

    def _located(self, prediction: Prediction) -> list[Found]:
        """The first guess with its box, or all guesses from the threshold that was given on."""
        if self.threshold is not None:
            return self._objects(prediction)
        first = {key: prediction[key][:1] for key in ("boxes", "scores", "labels")}
        return self._objects(first, torch.full_like(self.thresholds, -torch.inf))

    def _objects(self, prediction: Prediction, least: Tensor | None = None) -> list[Found]:
        boxes, scores, labels = (prediction[k].cpu() for k in ("boxes", "scores", "labels"))
        shown = scores >= (self.thresholds if least is None else least)[labels]
        rows = zip(labels[shown].tolist(), scores[shown].tolist(), boxes[shown].tolist(),
                   strict=True)  # fmt: skip
        return [Found(self.class_names[label], score, tuple(box)) for label, score, box in rows]

    def _guesses(self, prediction: Prediction) -> list[Found]:
        best = prediction["scores"].cpu().topk(min(TOP_K, len(self.class_names)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [Found(self.class_names[label], score) for label, score in pairs]


def usable_device(name: str | None) -> torch.device:
    """A device that works.

    Raises:
        UserError: it does not.
    """
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA asserts
        reason = str(error).splitlines()[0]
        raise UserError(f"device={name} cannot be used ({reason}): choose cpu or cuda") from None


def thresholds_of(
    class_names: Sequence[str], kept: dict[str, float], given: float | None
) -> Tensor:
    """(C,) least scores: those given, those kept; of a class without one the median of others'."""
    if given is not None:
        return torch.full((len(class_names),), given)
    usual = statistics.median(kept.values()) if kept else MOST
    return torch.tensor([kept.get(name, usual) for name in class_names])
