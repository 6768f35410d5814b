"""Features of regression examples, a file a class and process: they need not fit in memory."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Examples:
    """Where the examples of one class in one image are.

    Attributes:
        file: of features, float16 rows.
        start: first row.
        targets: (n, 4) box transforms, a row each.
    """

    file: str
    start: int
    targets: Tensor


class ExampleFiles:
    """Appends examples to files below a folder, and reads them back without loading them whole.

    Args:
        folder: emptied first by the process that writes `rank` 0; gone after `remove`.
        rank: this process.
        dimensions: of a feature.
    """

    def __init__(self, folder: Path, rank: int, dimensions: int) -> None:
        self.folder = folder
        self.rank = rank
        self.dimensions = dimensions
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"rank{rank}_*"):
            old.unlink()
        self.rows: dict[int, int] = {}

    def append(self, label: int, features: Tensor, targets: Tensor) -> Examples:
        """Keep the features (n, D) and tell where they are."""
        path = self.folder / f"rank{self.rank}_class{label}.f16"
        start = self.rows.get(label, 0)
        with path.open("ab") as file:
            features.half().cpu().numpy().tofile(file)
        self.rows[label] = start + len(features)
        return Examples(path.name, start, targets.float().cpu())

    def read(self, examples: Examples) -> Tensor:
        """The (n, D) features, float16, mapped from disk."""
        shape = (len(examples.targets), self.dimensions)
        offset = examples.start * self.dimensions * np.dtype(np.float16).itemsize
        mapped = np.memmap(self.folder / examples.file, np.float16, "c", offset, shape)
        return torch.from_numpy(mapped)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
