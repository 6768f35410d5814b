"""The index of 1.28 million images: time to open it, and what it adds to a process's memory.

Once of classification and once of localisation, with 600,000 boxes. Peer: the list of paths and
labels that `ImageFolder` keeps, read from a pickle.
"""

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from detection.data.image_index import Entry, open_index

IMAGES = 1_281_167


class Made:
    """Names as ILSVRC's, of files that nobody opens; perhaps 600,000 boxes of 550,000 of them."""

    def __init__(self, root: Path, boxes: bool) -> None:
        self.root, self.boxes = root, boxes
        self.class_names = [f"class {n}" for n in range(1000)]

    def fingerprint(self, split: str) -> str:
        return f"made {self.boxes}"

    def entries(self, split: str) -> Iterator[Entry]:
        for n in range(IMAGES):
            label = n * 1000 // IMAGES
            name = f"ILSVRC/Data/CLS-LOC/train/n{label:08d}/n{label:08d}_{n}.JPEG"
            count = (n % 7 < 3) + (n % 25 == 0)
            yield (name, label, [(0.0, 1.0, 100.0, 200.0)] * count) if self.boxes else (name, label)


PROBE = """
import sys, time
sys.path.insert(0, {root!r})
import pickle, numpy
from pathlib import Path
from benchmarks.image_index import Made, IMAGES
from detection.data.image_index import open_index
def memory():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))
before = memory()
start = time.perf_counter()
if {ours}:
    made = Made(Path({folder!r}), {boxes})
    index = open_index(Path({folder!r}), "made", made, "train")
    first = index.path(0)
    seconds = time.perf_counter() - start
    for n in range(0, IMAGES, 50):  # every page is touched
        index.path(n), int(index.labels[n]), index.boxes_of(n) if {boxes} else None
else:
    samples = pickle.load(open({folder!r} + "/samples.pkl", "rb"))
    seconds = time.perf_counter() - start
grown = (memory() - before) / 1024
print(f"{{seconds:.3f}} s to open; {{grown:.0f}} MiB over the bare process once all is read")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Made(Path(folder), boxes=False)
        open_index(Path(folder), "made", made, "train")
        start = time.perf_counter()
        located = open_index(Path(folder), "made", Made(Path(folder), boxes=True), "train")
        print(f"{len(located.boxes)} boxes indexed in {time.perf_counter() - start:.1f} s")
        samples = [(f"{folder}/{name}", label) for name, label in made.entries("train")]
        with (Path(folder) / "samples.pkl").open("wb") as file:
            pickle.dump(samples, file)
        for name, ours, boxes in (
            ("ours", True, False), ("ours with boxes", True, True), ("list of paths", False, False),
        ):  # fmt: skip
            root = str(Path(__file__).resolve().parents[1])
            probe = PROBE.format(root=root, folder=folder, ours=ours, boxes=boxes)
            result = subprocess.run(
                [sys.executable, "-c", probe], capture_output=True, text=True, check=True
            )
            print(f"{name}, {IMAGES} images: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
