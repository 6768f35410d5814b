"""Selective search (Uijlings et al. 2013) with the settings of R-CNN's authors.

It imports nothing slow: the compiled code and OpenCV's engine are loaded when they are used.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from zipfile import BadZipFile

import cv2
import numpy as np
from numpy.typing import NDArray

from detection.disk.files import replacing
from detection.errors import UserError

if TYPE_CHECKING:
    from detection.proposals.hierarchy import Grouping, Hierarchy

Boxes = NDArray[np.float32]
Image = NDArray[np.uint8]

DAMAGED = (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error, NotImplementedError)
"""What numpy and zipfile raise at a damaged `.npz`."""


@dataclass(frozen=True)
class SelectiveSearch:
    """Proposals of an image: `boxes = search(image)`. Every field is part of a store's name.

    Attributes:
        engine: "own" is the paper's algorithm; "opencv" is OpenCV's reading of it.
        mode: "fast" is 2 colour spaces x 2 strategies, "quality" 5 x 4.
        settings: "original": R-CNN's k = 50 and 100 ("quality": 50, 100, 150, 300) with least
            segments of k pixels; "opencv": OpenCV's own k = 150, 300, 450 (... 750) and 100.
        width_px: scale images to this width first, as R-CNN did for ILSVRC; None: as they are.
        max_side_px: then shrink images whose longer side is longer; None: search them as they are.
        min_side_px: drop boxes with a shorter side, in the scaled image.
        max_boxes: keep at most this many, the first; None: all.
        sigma: blur before segmentation.
    """

    engine: Literal["own", "opencv"] = "own"
    mode: Literal["fast", "quality"] = "fast"
    settings: Literal["original", "opencv"] = "original"
    width_px: int | None = None
    max_side_px: int | None = 640
    min_side_px: float = 20
    max_boxes: int | None = None
    sigma: float = 0.8
    # raised where the same options give other boxes
    revision: int = field(default=1, init=False)

    name: ClassVar[str] = "selective search"
    is_network: ClassVar[bool] = False
    is_ready: ClassVar[bool] = True
    hint: ClassVar[str] = (
        "a smaller proposals.search.min_side_px (small objects), a larger "
        "proposals.search.max_side_px (large pictures), or proposals.search.mode=quality"
    )

    def __post_init__(self) -> None:
        for name, words in (("engine", ("own", "opencv")), ("mode", ("fast", "quality")),
                            ("settings", ("original", "opencv"))):  # fmt: skip
            if (value := getattr(self, name)) not in words:
                raise UserError(f"selective search: {name}={value}: choose {' or '.join(words)}")
        for name in ("width_px", "max_side_px", "max_boxes", "sigma"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise UserError(f"selective search: {name}={value}: it is a number above 0")

    def __call__(self, image: Image) -> Boxes:
        """The (P, 4) boxes of an (H, W, 3) RGB or (H, W) grey uint8 image, P >= 1.

        They are half-open xyxy in pixels of the image. No box is returned twice. The order is the
        paper's: random, large regions sooner, and the same for the same image, so that a prefix is
        a good smaller set. An image in which nothing was found gives one box, the whole image.

        Raises:
            UserError: the image is of another form or type, or too large.
        """
        image = as_rgb(image)
        scaled = self.scaled(image)
        if self.engine == "own":
            nodes = [hierarchy.boxes for hierarchy in self.grouping()(scaled)]
            return chosen(nodes, scaled.shape[:2], image, self)[0]
        from detection.proposals.opencv_search import search

        return search(scaled, image.shape[:2], self)

    @property
    def notice(self) -> str:
        """See `ProposalSource.notice`."""
        if not self.max_side_px:
            return ""
        return (
            f"pictures longer than {self.max_side_px} pixels are searched at that size, where a "
            f"box has {self.min_side_px:g} pixels a side at least (proposals.search.max_side_px, "
            "min_side_px)"
        )

    def identity(self) -> str:
        """See `ProposalSource.identity`."""
        return repr(self)

    def regions(self, image: Image) -> "Regions":
        """The proposals of an image, as above, with the mask of each.

        Raises:
            UserError: as above, or the engine is OpenCV's, which has none.
        """
        if self.engine != "own":
            raise UserError(f"selective search: engine={self.engine} has no masks: choose own")
        image = as_rgb(image)
        scaled = self.scaled(image)
        hierarchies = list(self.grouping()(scaled))
        boxes, node = chosen([h.boxes for h in hierarchies], scaled.shape[:2], image, self)
        return Regions(boxes, hierarchies, node, image.shape[:2])

    def grouping(self) -> "Grouping":
        """The hierarchies that the proposals come from (Uijlings et al. 2013, 5.4)."""
        from detection.proposals.hierarchy import Grouping

        fast = self.mode == "fast"
        return Grouping(
            ("hsv", "lab") if fast else ("hsv", "lab", "rgi", "h", "i"),
            thresholds(self.mode, self.settings),
            ("CTSF", "TSF") if fast else ("CTSF", "TSF", "F", "S"),
            self.sigma,
        )

    def scaled(self, image: Image) -> Image:
        """The image at the size at which it is searched."""
        height, width = image.shape[:2]
        factor = 1.0 if self.width_px is None else self.width_px / width
        longer = factor * max(height, width)
        if self.max_side_px is not None and longer > self.max_side_px:
            factor *= self.max_side_px / longer
        if factor == 1:
            return np.ascontiguousarray(image)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        # antialiased where it shrinks: noise would make segments
        how = cv2.INTER_AREA if factor < 1 and self.width_px is None else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8)


def thresholds(mode: str, settings: str) -> list[tuple[float, int]]:
    """Each k of the segmentation, with its least size of a segment in pixels."""
    if settings == "original":  # rcnn: selective_search/selective_search_boxes.m
        return [(float(k), k) for k in ((50, 100) if mode == "fast" else (50, 100, 150, 300))]
    return [(150.0 * n, 100) for n in range(1, 4 if mode == "fast" else 6)]


@dataclass(frozen=True)
class Regions:
    """Proposals with their masks, which are painted when they are asked for.

    Attributes:
        boxes: (P, 4) float32 half-open xyxy in pixels of the image.
        hierarchies: of the scaled image.
        node: (P, 2) int64: the hierarchy of each proposal, and its node there.
        size: height and width of the image.
    """

    boxes: Boxes
    hierarchies: "list[Hierarchy]"
    node: NDArray[np.int64]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.boxes)

    def save(self, file: Path) -> None:
        """Write all of it to one `.npz`; a map of segments that hierarchies share is there once."""
        maps: dict[int, int] = {}
        arrays = {"boxes": self.boxes, "node": self.node, "size": np.array(self.size)}
        for number, hierarchy in enumerate(self.hierarchies):
            place = maps.setdefault(id(hierarchy.labels), len(maps))
            arrays[f"labels_{place}"] = hierarchy.labels
            arrays[f"map_{number}"] = np.array(place)
            arrays[f"joined_{number}"] = hierarchy.joined
            arrays[f"boxes_{number}"] = hierarchy.boxes
        with replacing(file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, file: Path) -> "Regions":
        """What `save` wrote.

        Raises:
            UserError: the file is missing or damaged.
        """
        from detection.proposals.hierarchy import Hierarchy

        try:
            with np.load(file) as kept:
                arrays = {name: kept[name] for name in kept.files}
            hierarchies = [
                Hierarchy(arrays[f"labels_{arrays[f'map_{n}']}"], arrays[f"joined_{n}"],
                          arrays[f"boxes_{n}"])
                for n in range(sum(name.startswith("map_") for name in arrays))
            ]  # fmt: skip
            height, width = (int(side) for side in arrays["size"])
            return cls(arrays["boxes"], hierarchies, arrays["node"], (height, width))
        except DAMAGED as error:
            raise UserError(
                f"{file} is missing or damaged ({error}): delete it, and search again"
            ) from None

    def mask(self, proposal: int) -> NDArray[np.bool_]:
        """(H, W) bool in the image: the pixels of a proposal."""
        hierarchy, node = self.node[proposal]
        mask = self.hierarchies[hierarchy].mask(node)
        if mask.shape == self.size:
            return mask
        size = (self.size[1], self.size[0])
        return cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0


def as_rgb(image: NDArray[Any]) -> Image:
    """An (H, W, 3) RGB or (H, W) or (H, W, 1) grey image as RGB.

    Raises:
        UserError: it is of another form or type.
    """
    channels = 1 if image.ndim == 2 else image.shape[2] if image.ndim == 3 else 0
    if image.dtype != np.uint8 or channels not in (1, 3) or image.size == 0:
        raise UserError(
            f"selective search takes (H, W, 3) RGB or (H, W) grey uint8 images, and this is "
            f"{image.shape} {image.dtype}"
        )
    return image if channels == 3 else np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)


def chosen(
    nodes: Sequence[NDArray[np.int32]],
    scaled: tuple[int, ...],
    image: Image,
    search: SelectiveSearch,
) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes (P, 4) of the nodes that are proposals, in their order, and where each is (P, 2).

    A region's place is the number of its step, counted from the whole picture as the first,
    times a random number (Uijlings et al. 2013, 4.1). Of equal boxes the first stays.

    Args:
        nodes: boxes of all nodes of each hierarchy, the whole picture last.
        scaled: height and width at which they were found.
        image: gives the random numbers their seed, whatever it is called.
        search: its limits.
    """
    found, counts = np.concatenate(nodes), [len(boxes) for boxes in nodes]
    rank = np.concatenate([np.arange(n, 0, -1) for n in counts])
    generator = np.random.default_rng(zlib.crc32(np.ascontiguousarray(image).data))
    order = np.argsort(rank * generator.random(len(rank)), kind="stable")
    large = (found[:, 2:] - found[:, :2]).min(axis=1) >= search.min_side_px
    rows = order[large[order]]
    rows = rows[first_of_equal(found[rows])][: search.max_boxes]
    if len(rows) == 0:
        rows = np.array([counts[0] - 1])  # the whole picture
    starts = np.cumsum([0, *counts])
    hierarchy = np.searchsorted(starts, rows, side="right") - 1
    whole = np.array([image.shape[1], image.shape[0]] * 2, np.float64)
    back = whole / [scaled[1], scaled[0], scaled[1], scaled[0]]
    boxes = np.minimum(found[rows] * back, whole).astype(np.float32)
    return boxes, np.stack([hierarchy, rows - starts[hierarchy]], axis=1)


def first_of_equal(rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Numbers of the rows that no row before them equals, ascending.

    >>> first_of_equal(np.array([[2, 2], [1, 1], [2, 2], [0, 1]])).tolist()
    [0, 1, 3]
    """
    by_value = np.lexsort(rows.T)  # stable: of equal rows the first comes first
    ordered = rows[by_value]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return np.sort(by_value[is_first])
