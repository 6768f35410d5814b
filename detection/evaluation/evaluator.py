"""The contract of an evaluator, and what one test comes to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torchmetrics import Metric

from detection.data.module import DataModule
from detection.report.media import Media
from detection.report.page import Page
from detection.report.tables import Table


class Predictions(Protocol):
    """What a model said of every test image, to be kept."""

    def save(self, run_dir: Path) -> None:
        """Write them as files of a run, for other programs and for ours."""
        ...


@dataclass
class Result:
    """What one test came to. `runs/` writes it; the report renders it without knowing the task.

    Attributes:
        figures: by name, such as `map`, `ap/cat`, `top1_error`; shares as fractions. They become
            `test/map` and so on in `metrics.json`.
        table: which of them a person sees at once, beside the published ones.
        predictions: of every image.
        page: of the report.
        media: for W&B.
        about_data: figures of the data, not of the model, under their full names, such as
            `proposals/recall_0.5`.
    """

    figures: dict[str, float]
    table: Table
    predictions: Predictions
    page: Page
    media: list[Media] = field(default_factory=list)
    about_data: dict[str, float] = field(default_factory=dict)


class Update(Protocol):
    """The one signature of all metrics here."""

    def __call__(
        self,
        preds: Sequence[Mapping[str, Tensor]],
        targets: Sequence[Mapping[str, Tensor]],
        image_ids: Sequence[int] | None = None,
    ) -> None:
        """Take in some images; an image that comes twice, by its number, counts once."""
        ...


class Evaluator(Protocol):
    """How predictions are measured: one for each task and protocol, named in a data set's config.

    Attributes:
        headline: the figure that counts, the higher the better: `val/<headline>` is what sweeps
            choose by.
    """

    headline: str

    def metric(self, num_classes: int) -> Metric:
        """A fresh metric; its `update` is an `Update`."""
        ...

    def figures(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """The figures of a metric that has seen some images."""
        ...

    def thresholds(self, metric: Metric, class_names: Sequence[str]) -> dict[str, float]:
        """For each class the score from which on a prediction is worth showing, if there is one."""
        ...

    def result(self, metric: Metric, data: DataModule) -> Result:
        """All that is shown and kept of a metric that has seen the test images."""
        ...
