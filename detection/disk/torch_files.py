"""Files that `torch.save` wrote, by whomever: tensors and plain values, and nothing that runs."""

import pickle
import re
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile, is_zipfile

import torch
from torch import Tensor

from detection.errors import UserError

BYTES = re.compile(rb"builtins?(?:__)?\W{1,4}bytearray")  # a class in a pickle; it takes its size
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool,
           torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)  # fmt: skip
SLACK = 2**20  # bytes by which parts may be larger than their file


def load_plain(path: Path, what: str) -> Any:
    """The content of a file, on the CPU; nothing in it is run.

    Args:
        path: of the file.
        what: the option that named it, and what it should be, for messages: "x is no such file".

    Raises:
        UserError: it is damaged, holds more than tensors and plain values, or would fill memory.
    """
    check_size(path, what)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # torch advises to run it
        raise UserError(
            f"{what}: it holds more than tensors and plain values, or is damaged; what could be a "
            "program is not run"
        ) from None
    except Exception as error:  # on a damaged file an unpickler may fail in any way
        raise UserError(f"{what} ({type(error).__name__}): {first_sentence(error)}") from None


def first_sentence(error: Exception) -> str:
    """What an error says, without the advice that torch adds.

    >>> first_sentence(RuntimeError("PytorchStreamReader failed reading zip archive: x. Go on"))
    'PytorchStreamReader failed reading zip archive: x'
    """
    return re.split(r"\. |\n", str(error))[0][:200]


def check_size(path: Path, what: str) -> None:
    """Refuse a file whose parts are larger than itself, by its table of contents.

    torch packs nothing: a file of 3 MB that holds 6 GB was made to fill memory.

    Raises:
        UserError: it is one.
    """
    if not is_zipfile(path):
        return
    try:
        with ZipFile(path) as parts:
            inside, size = sum(part.file_size for part in parts.infolist()), path.stat().st_size
            if inside > size + SLACK:
                raise UserError(
                    f"{what}: its parts are packed, {inside / 1e9:.1f} GB in {size / 1e6:.1f} MB; "
                    "it is not read, for torch packs nothing"
                )
            for name in (name for name in parts.namelist() if name.endswith(".pkl")):
                if BYTES.search(parts.read(name)):
                    raise UserError(f"{what}: it asks for memory of a size that it names itself")
    except BadZipFile:
        return  # damaged, as torch will say


def check_weights(state: Any, what: str) -> dict[str, Tensor]:
    """A state dict whose tensors are as large as they say, and hold numbers.

    Args:
        state: to be checked.
        what: see `load_plain`.

    Raises:
        UserError: it is no state dict, or holds what no training writes; names the tensor.
    """
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise UserError(f"{what}: there is no state dict in it")
    for name, value in state.items():
        is_plain = value.layout == torch.strided and value.device.type == "cpu"
        if not is_plain or value.dtype not in NUMBERS:
            raise UserError(
                f"{what}: {name} is a tensor of a kind that no model here has ({value.dtype}, "
                f"{value.layout}, {value.device.type})"
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UserError(f"{what}: {name} is larger than what the file holds of it")
        if not are_numbers(value):
            raise UserError(f"{what}: {name} holds what is no number (NaN or infinite)")
    return state


def are_numbers(value: Tensor) -> bool:
    """Whether a tensor holds numbers; -inf is one: the bias of a class that is never detected.

    >>> are_numbers(torch.tensor([1.0, -torch.inf])), are_numbers(torch.tensor([torch.nan]))
    (True, False)
    """
    return not value.is_floating_point() or bool((value < torch.inf).all())
