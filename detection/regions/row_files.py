"""Features of examples on disk, a file a process: they need not fit in memory."""

import shutil
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detection.errors import UserError

RANK_SHIFT = 40  # a row's id: the process that wrote it, then its number there

Ids = NDArray[np.int64]


class RowFiles:
    """Appends float16 rows to this process's file; reads rows of all processes by their ids.

    Args:
        folder: shared by all processes; gone after `remove`.
        rank: this process, whose old file is deleted.
        dimensions: of a row.
    """

    def __init__(self, folder: Path, rank: int, dimensions: int) -> None:
        self.folder = folder
        self.rank = rank
        self.dimensions = dimensions
        self.rows = 0
        folder.mkdir(parents=True, exist_ok=True)
        self.path(rank).unlink(missing_ok=True)

    def path(self, rank: int) -> Path:
        """The file of a process."""
        return self.folder / f"rank{rank}.f16"

    def append(self, features: Tensor) -> Ids:
        """Keep (n, D) features; their ids (n,)."""
        try:
            with self.path(self.rank).open("ab") as file:
                features.detach().half().cpu().numpy().tofile(file)
        except OSError as error:
            raise UserError(
                f"{self.path(self.rank)} could not be written: {error.strerror or error}. Free "
                "some space, or choose another folder with paths.runs=; the same run_dir= goes on"
            ) from error
        numbers = np.arange(self.rows, self.rows + len(features), dtype=np.int64)
        self.rows += len(features)
        return numbers + (self.rank << RANK_SHIFT)

    def read(self, ids: Ids) -> Tensor:
        """The (n, D) float16 rows of some ids, in their order."""
        result = np.empty((len(ids), self.dimensions), np.float16)
        for rank in np.unique(ids >> RANK_SHIFT):
            mine = np.flatnonzero(ids >> RANK_SHIFT == rank)
            rows = ids[mine] - (rank << RANK_SHIFT)
            mapped = np.memmap(self.path(int(rank)), np.float16, "r")
            result[mine] = mapped.reshape(-1, self.dimensions)[rows]
        return torch.from_numpy(result)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
