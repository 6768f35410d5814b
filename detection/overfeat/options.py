"""What the training of OverFeat's localiser and of its detector have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from detection.localization.training_views import ViewsOptions

TABLE5 = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))


@dataclass(frozen=True, kw_only=True)
class OverFeatOptions(ViewsOptions):
    """How OverFeat's fc layers learn from the windows of whole images; see `ViewsOptions` too.

    A loss here is a mean over windows. Of several processes it is the mean of their means, which
    is the same where each has as many windows.

    Attributes:
        sizes: see `ViewsOptions` (table 5).
        batch_size: see `ImagesOptions`.
        epochs: see `ImagesOptions`.
        dropout: after hidden layers.
        backpropagate: see `ImagesOptions`.
    """

    sizes: Sequence[Sequence[int] | int] = TABLE5
    batch_size: int = 16
    epochs: int = 30
    dropout: float = 0.0
    backpropagate: bool = False
