"""A network that other programs can run, as a model has one or several in it."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Part(NamedTuple):
    """A network, and how it is called.

    Attributes:
        network: in eval mode.
        example: an input; the first dimension may be of any size.
        input_name: of the input.
        output_names: of the outputs.
        about: what goes in and comes out.
        left_out: what of the model is no network, and is left to the caller.
        resizes: whether height and width of the input may be of any size too.
    """

    network: nn.Module
    example: Tensor
    input_name: str
    output_names: Sequence[str]
    about: str
    left_out: str = ""
    resizes: bool = False


class Entry(NamedTuple):
    """Where a network in a region detector begins, which depends on the method.

    Attributes:
        input_name: of what goes in.
        example: of it.
        about: its shape and meaning.
        left_out: what the caller does before.
    """

    input_name: str
    example: Tensor
    about: str
    left_out: str
