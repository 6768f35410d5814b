"""Selective search by two threads against one, and the time to open a store again.

python -m benchmarks.proposals [FOLDER OF IMAGES]   (the drawn shapes by default)
"""

import sys
import tempfile
from pathlib import Path

from benchmarks.timing import seconds
from detection.data.shapes.draw import draw_shapes
from detection.proposals.hierarchy import ready
from detection.proposals.selective_search import SelectiveSearch
from detection.proposals.store import open_store

IMAGES = 128
COPIES = 8  # the store of 1,024 images that is opened


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
        else:
            folder = draw_shapes(None, temporary, train=IMAGES, val=0, test=0) / "JPEGImages"
        paths = sorted(folder.iterdir())[:IMAGES]
        search = SelectiveSearch()
        ready()

        def find(threads: int) -> None:
            open_store(Path(temporary) / f"by{threads}", "images", paths, search, threads)

        one, two = seconds(lambda: find(1)), seconds(lambda: find(2))
        print(
            f"{len(paths)} images: 1 thread {one:.1f} s, 2 threads {two:.1f} s, "
            f"{one / two:.2f} times as fast"
        )
        many = paths * COPIES
        cache = Path(temporary) / "many"
        open_store(cache, "images", many, search, 2)
        again = seconds(lambda: open_store(cache, "images", many, search, 2))
        print(f"opening it again: {again / len(many) * 1000:.3f} s a thousand images")


if __name__ == "__main__":
    main()
