"""`detection.predict` on a folder of photographs: images a second by part, memory, and a bare loop.

python -m benchmarks.predict RUN FOLDER [IMAGES]   (100 of them, again and again if they are fewer)

The loop is the Python API, image after image. Parts of several threads add up to more than the
time that passes. Memory is the process's, after a tenth of the images and at the end.
"""

import logging
import resource
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.timing import seconds
from detection.data.module import DataModule  # noqa: F401  (loads what it needs before the clock)
from detection.disk.images import images_below
from detection.predict import Predictor
from detection.runs import prediction
from detection.runs.predict import PredictOptions

PARTS = {
    "read_upright": "decoding",
    "draw": "drawing, writing",
    "write_predictions": "page, tables",
}


def resident_gb() -> float:
    """Memory of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**30


def watched(spent: Counter[str], part: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, whose time is added up."""

    def timed(*args: Any, **options: Any) -> Any:
        result: list[Any] = []
        spent[part] += seconds(lambda: result.append(work(*args, **options)))
        return result[0]

    return timed


def main() -> None:
    run, folder = sys.argv[1], Path(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100
    found = images_below(folder)
    logging.basicConfig(level=logging.WARNING)
    with tempfile.TemporaryDirectory() as temporary:
        images, out = Path(temporary) / "images", Path(temporary) / "out"
        images.mkdir()
        for number in range(count):
            file = found[number % len(found)]
            shutil.copy(file, images / f"{number:05d}{file.suffix}")
        predictor = Predictor(run)
        predictor(images_below(images)[0])  # compiled, warm

        spent: Counter[str] = Counter()
        for name, part in PARTS.items():
            setattr(prediction, name, watched(spent, part, getattr(prediction, name)))
        Predictor.sample = watched(spent, "proposals", Predictor.sample)  # type: ignore[method-assign]
        Predictor.predict = watched(spent, "network, NMS", Predictor.predict)  # type: ignore[method-assign]
        memory: list[float] = []
        recorded = prediction.records_of
        prediction.records_of = lambda *a: memory.append(resident_gb()) or recorded(*a)  # type: ignore[func-returns-value]
        options = PredictOptions(ckpt=run, images=str(images), out=str(out))
        whole = seconds(lambda: prediction.predict(options))
        told = ", ".join(f"{part} {time:.1f}" for part, time in spent.most_common())
        print(f"{count} images in {whole:.1f} s, {count / whole:.1f} a second; s by part: {told}")
        early = memory[len(memory) // 10]
        print(f"memory: {early:.2f} GB after a tenth, {memory[-1]:.2f} GB at the end, "
              f"{max(memory):.2f} at most")  # fmt: skip
        few = images_below(images)[: min(count, 100)]
        loop = seconds(lambda: [predictor(file) for file in few])
        print(f"a loop over the API, which draws nothing: {len(few) / loop:.1f} images a second")


if __name__ == "__main__":
    main()
