"""What a source of proposals is, whatever finds them."""

from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray


class ProposalSource(Protocol):
    """Where a region detector's boxes come from: selective search, or a network.

    Attributes:
        name: what a person calls it.
        is_network: it is learnt, in a stage of the run, and one thread looks with it; any number
            may search side by side with what is no network.
        hint: options that may cover more of the objects.
    """

    name: ClassVar[str]
    is_network: ClassVar[bool]
    hint: ClassVar[str]

    @property
    def notice(self) -> str:
        """What a person should know before it searches; or nothing."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether there is nothing to be learnt first."""
        ...

    def identity(self) -> str:
        """All that its boxes depend on, weights too."""
        ...

    def __call__(self, image: Any) -> NDArray[np.float32]:
        """The (P, 4) boxes of an (H, W, 3) uint8 RGB image, the most likely first."""
        ...
