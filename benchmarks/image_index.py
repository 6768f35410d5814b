"""The index of 1.28 million images: time to open it, and what it adds to a process's memory.

Peer: the list of paths and labels that `ImageFolder` keeps, read from a pickle.
"""

import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from detection.data.image_index import open_index

IMAGES = 1_281_167


class Made:
    """Names as ILSVRC's, of files that nobody opens."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.class_names = [f"class {n}" for n in range(1000)]

    def fingerprint(self, split: str) -> str:
        return "made"

    def entries(self, split: str) -> Iterator[tuple[str, int]]:
        for n in range(IMAGES):
            label = n * 1000 // IMAGES
            yield f"ILSVRC/Data/CLS-LOC/train/n{label:08d}/n{label:08d}_{n}.JPEG", label


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
    index = open_index(Path({folder!r}), "made", Made(Path({folder!r})), "train")
    first = index.path(0)
    seconds = time.perf_counter() - start
    for n in range(0, IMAGES, 50):  # every page is touched
        index.path(n), int(index.labels[n])
else:
    samples = pickle.load(open({folder!r} + "/samples.pkl", "rb"))
    seconds = time.perf_counter() - start
grown = (memory() - before) / 1024
print(f"{{seconds:.3f}} s to open; {{grown:.0f}} MiB over the bare process once all is read")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = Made(Path(folder))
        open_index(Path(folder), "made", made, "train")
        samples = [(f"{folder}/{name}", label) for name, label in made.entries("train")]
        with (Path(folder) / "samples.pkl").open("wb") as file:
            pickle.dump(samples, file)
        for name, ours in (("ours", True), ("list of paths", False)):
            root = str(Path(__file__).resolve().parents[1])
            probe = PROBE.format(root=root, folder=folder, ours=ours)
            result = subprocess.run(
                [sys.executable, "-c", probe], capture_output=True, text=True, check=True
            )
            print(f"{name}, {IMAGES} images: {result.stdout.strip()}")


if __name__ == "__main__":
    main()
