"""The contract of a model: what is used, and all that training, testing and commands know of it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detection.combine.nms import Combination
from detection.data.module import DataModule
from detection.data.samples import AsStored, Sample, Transform
from detection.errors import TrainingError
from detection.report.page import Section
from detection.training.part import Part

Prediction = dict[str, Tensor]
"""What a model says of an image, by task. Detection: `boxes` (K, 4) float32 half-open xyxy in
pixels of the original image, `scores` (K,) float32, `labels` (K,) int64, best first.
Classification: `scores` (C,) float32. Localisation: `boxes` (k, 4), `labels` (k,), `scores` (k,),
a class each, best first, and where the sample says its label `true_box` (4,), the box for that."""


def check_numbers(image_id: str, *values: Tensor) -> None:
    """Check that what a model says of an image are numbers.

    Raises:
        TrainingError: one is not; names the image.
    """
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise TrainingError(
            f"boxes or scores of image {image_id} are not numbers: the model's training diverged; "
            "lower its learning rate"
        )


class Model(nn.Module):
    """Images → predictions. It knows nothing of training; a stage learns a part of it.

    Attributes:
        num_classes: C, without background.
        tasks: of the data that it predicts for, such as "detection".
        precision: of inference, "float32" or "bfloat16", whatever a trainer's is.
    """

    num_classes: int
    tasks: tuple[str, ...] = ()
    precision: str = "float32"

    @property
    def transform(self) -> Transform:
        """What it makes of a sample in the loader's workers: test-time views, scaling."""
        return AsStored()

    def prepare(self, data: DataModule) -> None:
        """What it needs of the splits of a data set before anything runs; here, its transform.

        Region detectors find proposals too. An override calls this one. It is called again after
        each stage, for what was learnt may find more, and then does what is left to do.
        """
        data.transform = self.transform

    def sample(self, image: Tensor, name: str = "", index: int = 0) -> Sample:
        """What `predict` takes, of a (3, H, W) uint8 RGB image of no data set.

        Threads may call it side by side. Region detectors look for proposals here.
        """
        return self.transform(Sample(image, {}, name, index))

    def predict(self, batch: Sequence[Sample]) -> list[Prediction]:
        """A prediction for each sample that `transform` made."""
        raise TypeError(f"{type(self).__name__} does not say how it predicts")

    def candidates(self, batch: Sequence[Sample]) -> list[Prediction]:
        """Predictions before they are combined: of a detector, all scored boxes (N,) in any order.

        An ensemble gathers these of all its members.
        """
        return self.predict(batch)

    @property
    def combination(self) -> Combination | None:
        """From the candidates of several models to predictions; None: scores are averaged."""
        return None

    def jointly(
        self, members: Sequence["Model"], batch: Sequence[Sample]
    ) -> list[Prediction] | None:
        """What several models like this one, the first of them, predict together.

        None: their candidates are combined, or their scores averaged, as most have it.
        """
        return None

    def sections(self, data: DataModule) -> list[Section]:
        """What a report shows of this method beside what every test of the task shows.

        Args:
            data: with test images.
        """
        return []

    def parts(self) -> dict[str, Part]:
        """The networks in it that other programs can run, by name; "head" is the last of them."""
        return {}

    def interface(self) -> dict[str, object]:
        """What the members of an ensemble must have in common, by name."""
        return {"num_classes": self.num_classes}

    def autocast(self, device: torch.device) -> torch.autocast:
        """The context of inference."""
        kind = "cpu" if device.type == "meta" else device.type  # sizes without numbers
        return torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bfloat16")
