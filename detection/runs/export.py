"""The options and the course of `detection.export`; what needs torch is imported late."""

import importlib.util
import json
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from detection.config.options import options_of, small_command
from detection.errors import UserError

if TYPE_CHECKING:
    from detection.disk.checkpoints import Checkpoint
    from detection.training.part import Part

log = logging.getLogger(__name__)

USAGE = "python -m detection.export ckpt=RUN out=FILE.safetensors|FILE.onnx|FILE.pt2 [part=...]"
SUFFIXES = (".safetensors", ".onnx", ".pt2")


@dataclass
class ExportOptions:
    """The options of the command line.

    Attributes:
        ckpt: a run's folder, or its model.ckpt.
        out: file to write: .safetensors (weights, with how to build the model as metadata), .onnx
            or .pt2 (torch.export) for a network that runs without this package.
        part: of a detector, for .onnx and .pt2: "head" scores regions, "maps" are its convolutions.
        svd_rank: ranks of fc6 and fc7, such as [256,64], which is faster; null: as they are.
    """

    ckpt: str = MISSING
    out: str = MISSING
    part: str = "head"
    svd_rank: list[int] | None = None


def read_options(words: Sequence[str]) -> ExportOptions:
    """The options of a command line.

    Raises:
        UserError: one is missing, unknown, or of a wrong value; the file exists.
    """
    options = options_of(words, ExportOptions, USAGE, {"part": ("head", "maps")})
    out = Path(options.out).expanduser()
    if out.suffix not in SUFFIXES:
        raise UserError(f"out={out}: must end in {', '.join(SUFFIXES)}")
    if out.exists():
        raise UserError(f"out={out} exists already: choose another name, or remove it")
    needed = {".onnx": ("onnx", "onnxscript")}.get(out.suffix, ())
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        raise UserError(
            f"out={out} needs the package {' and '.join(absent)}: pip install 'detection[onnx]'"
        )
    return options


def export(options: ExportOptions) -> None:
    """Write the file.

    Raises:
        UserError: no such model, or one that has no such part.
    """
    from detection.disk.checkpoints import read_checkpoint
    from detection.disk.files import replacing
    from detection.runs.evaluate import restore_all

    content, out = read_checkpoint(options.ckpt), Path(options.out).expanduser()
    out.parent.mkdir(parents=True, exist_ok=True)
    model = restore_all([content], svd_rank=options.svd_rank)
    if out.suffix == ".safetensors":
        if options.svd_rank:
            raise UserError("svd_rank= is for .onnx and .pt2: weights are exported as they are")
        with replacing(out) as temporary:
            write_weights(content, temporary)
        log.info("%d weights → %s", len(content["state_dict"]), out)
        return
    parts = model.parts()
    if options.part not in parts:
        known = f"it has {', '.join(parts)}" if parts else "export its weights: FILE.safetensors"
        raise UserError(f"part={options.part}: this model has no such network; {known}")
    part = parts[options.part]
    write = write_onnx if out.suffix == ".onnx" else write_program
    with replacing(out) as temporary:
        write(part, metadata(content), temporary)
    log.info("%s → %s", part.about, out)
    if part.left_out:
        log.info("not in the file, for it is no network: %s", part.left_out)


def metadata(content: "Checkpoint") -> dict[str, str]:
    """What a checkpoint knows beside its weights, as texts; lists and trees as JSON."""
    return {
        "format": "detection",
        "version": content["version"],
        "class_names": json.dumps(content["class_names"]),
        "thresholds": json.dumps(content["thresholds"]),
        "model": json.dumps(content["model"]),
        "data": json.dumps(content["data"], default=str),
    }


def write_weights(content: "Checkpoint", path: Path) -> None:
    """The state dict as safetensors."""
    from safetensors.torch import save_file

    # tensors that share memory are refused
    state = {key: value.contiguous().clone() for key, value in content["state_dict"].items()}
    save_file(state, str(path), metadata(content))


def traced(part: "Part") -> Any:
    """The graph of a network, in operations that every runtime has."""
    import torch
    from torch.export import Dim

    places = dict.fromkeys((0, 2, 3) if part.resizes else (0,), Dim.DYNAMIC)
    part.network.eval()
    with torch.no_grad():
        return torch.export.export(
            part.network, (part.example,), dynamic_shapes=(places,), strict=False
        )


def write_program(part: "Part", about: dict[str, str], path: Path) -> None:
    """As `torch.export.load` reads it."""
    import torch

    texts = about | {"about": part.about, "left_out": part.left_out}
    with warnings.catch_warnings(), path.open("wb") as file:
        warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
        torch.export.save(traced(part), file, extra_files=texts)


def write_onnx(part: "Part", about: dict[str, str], path: Path) -> None:
    """As ONNX's runtimes read it."""
    import torch

    program = traced(part).run_decompositions(
        {**torch.export.default_decompositions(), **decompositions()}
    )
    for noisy in ("onnxscript", "onnx_ir"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    made = torch.onnx.export(
        program, input_names=[part.input_name], output_names=list(part.output_names), dynamo=True,
        verbose=False,
    )  # fmt: skip
    assert made is not None
    made.model.metadata_props.update(about | {"about": part.about, "left_out": part.left_out})
    made.save(str(path))


def decompositions() -> dict[Any, Any]:
    """What ONNX lacks, in what it has: adaptive pooling of a map of known size."""
    import torch
    from torch import Tensor

    def adaptive_max_pool2d(maps: Tensor, grid: Sequence[int]) -> tuple[Tensor, Tensor]:
        for dim, bins in ((2, grid[0]), (3, grid[1])):
            side = maps.shape[dim]
            parts = [
                maps.narrow(dim, i * side // bins, -(-(i + 1) * side // bins) - i * side // bins)
                for i in range(bins)
            ]
            maps = torch.stack([some.amax(dim=dim) for some in parts], dim=dim)
        return maps, maps.new_zeros(maps.shape, dtype=torch.long)  # whose places nobody asks for

    return {torch.ops.aten.adaptive_max_pool2d.default: adaptive_max_pool2d}


def main() -> None:
    """The command."""
    small_command(USAGE, ExportOptions, lambda words: export(read_options(words)))
