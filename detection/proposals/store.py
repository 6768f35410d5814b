"""Proposals of a data set on disk, computed once."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.disk.arrays import Part, RaggedArray, computed, fingerprint
from detection.disk.images import read_image
from detection.proposals.pool import find_all
from detection.proposals.selective_search import Regions, SelectiveSearch
from detection.proposals.source import ProposalSource

Search = Callable[[Any], NDArray[np.float32]]


def open_store(
    cache: Path, name: str, paths: Sequence[Path], search: ProposalSource, threads: int
) -> RaggedArray:
    """Proposals of some images, (P, 4) for each, computed first where they are not on disk.

    Args:
        cache: folder of all caches.
        name: what a person calls the data, such as "voc07-test".
        paths: the images, in the data set's order.
        search: finds them.
        threads: how many compute, unless it is a network.

    Raises:
        UserError: an image cannot be read, or the disk is full; what was finished is kept.
    """
    folder = cache / "proposals" / f"{name}-{fingerprint(search.identity(), files=paths)}"
    about = {"settings": search.identity()}
    threads = 1 if search.is_network else threads
    compute = partial(find_parts, paths=paths, search=search, threads=threads, title=folder.name)
    return computed(folder, about, len(paths), compute, width=4)


def stored_regions(cache: Path, path: Path, search: SelectiveSearch) -> Regions:
    """The regions of an image with their masks, from the cache, or searched and kept there.

    Maps of segments and merge trees are kept, some 0.2 MB a photograph, and no mask.

    Raises:
        UserError: the image cannot be read, or the disk is full.
    """
    name = f"{path.stem}-{fingerprint(repr(search), files=[path])}.npz"
    file = cache / "regions" / name
    if file.is_file():
        return Regions.load(file)
    regions = search.regions(read_image(path))
    regions.save(file)
    return regions


def find_parts(
    parts: Sequence[Part], paths: Sequence[Path], search: Search, threads: int, title: str
) -> None:
    """Find the proposals of some images, part by part, in several threads."""
    work = [(file, [paths[i] for i in items]) for file, items in parts]
    find_all(work, search, threads, title=f"proposals {title}")
