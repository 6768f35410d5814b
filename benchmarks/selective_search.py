"""Selective search: ours against OpenCV's with the same settings, by part, and on large pictures.

python -m benchmarks.selective_search [FOLDER OF IMAGES]   (the drawn shapes by default)

One core; compiled beforehand. OpenCV is asked for the same hierarchies; see
`detection/proposals/opencv_search.py`.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from benchmarks.timing import seconds
from detection.data.shapes.draw import draw_shapes
from detection.disk.images import read_image
from detection.proposals import graph_segmentation, grouping, hierarchy
from detection.proposals.selective_search import SelectiveSearch

IMAGES = 10
CARD = (540, 960)  # height and width of the larger pictures of a person's own
PHONE = (3000, 4000)
PARTS = [
    (graph_segmentation, "sorted_edges"),
    (graph_segmentation, "segment"),
    (grouping, "texture_codes"),
    (grouping, "neighbour_pairs"),
    (grouping, "describe"),
    (grouping, "group"),
]


def against_opencv(name: str, images: list[np.ndarray], **options: str) -> None:
    ours, theirs = SelectiveSearch(**options), SelectiveSearch(engine="opencv", **options)
    pairs = [(seconds(lambda: ours(i)), seconds(lambda: theirs(i))) for i in images]  # noqa: B023
    mine, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    print(f"{name}: ours {mine:.3f} s, OpenCV {peer:.3f} s a picture, {ratio:.1f} times as fast")


def by_part(images: list[np.ndarray]) -> None:
    """Time of each compiled function, and of all that is around them."""
    spent: dict[str, float] = {}

    def timed(name: str, work: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            start = time.perf_counter()
            result = work(*arguments)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            return result

        return call

    kept = [getattr(module, name) for module, name in PARTS]
    for (module, name), work in zip(PARTS, kept, strict=True):
        setattr(module, name, timed(name, work))
    whole = sum(seconds(lambda: SelectiveSearch()(i)) for i in images)  # noqa: B023
    for (module, name), work in zip(PARTS, kept, strict=True):
        setattr(module, name, work)
    spent["the rest"] = whole - sum(spent.values())
    for name, value in spent.items():
        print(f"  {name}: {value / len(images) * 1000:.1f} ms a picture")


def large() -> None:
    """A smooth picture of a phone, with a little noise: time and memory, unbounded and bounded."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, PHONE[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    noise = generator.integers(-3, 4, smooth.shape)
    picture = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    for bound in (640, None):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
            took, peak = alone.submit(time_and_peak, picture, bound).result()
        print(f"4000×3000, max_side_px={bound}: {took:.2f} s, peak memory {peak:.2f} GB")


def time_and_peak(picture: np.ndarray, bound: int | None) -> tuple[float, float]:
    """Seconds, and the most memory that this process ever held, in GB."""
    cv2.setNumThreads(1)
    hierarchy.ready()
    took = seconds(lambda: SelectiveSearch(max_side_px=bound)(picture))
    status = Path("/proc/self/status").read_text()
    return took, int(status.split("VmHWM:")[1].split()[0]) / 1e6


def main() -> None:
    cv2.setNumThreads(1)
    print(f"compiled, or read from the cache: {seconds(hierarchy.ready):.2f} s")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
        folder = folder or draw_shapes(None, temporary, train=IMAGES, val=0, test=0) / "JPEGImages"
        images = [read_image(path) for path in sorted(folder.iterdir())[:IMAGES]]
    against_opencv(f"{len(images)} pictures, fast", images)
    by_part(images)
    took = statistics.median(
        seconds(lambda: SelectiveSearch(mode="quality")(i))  # noqa: B023
        for i in images
    )
    print(f"{len(images)} pictures, quality: ours {took:.3f} s a picture")
    cards = [cv2.resize(i, CARD[::-1], interpolation=cv2.INTER_AREA) for i in images[:3]]
    against_opencv("3 of them at 960×540, fast", cards)
    large()


if __name__ == "__main__":
    main()
