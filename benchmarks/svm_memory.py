"""Memory of the SVM stage on VOC-sized features: 200 hard negatives of each of 5,000 images.

python -m benchmarks.svm_memory [CLASSES]   (trains so many of the 20 classes, 4 by default)

A million rows of 4,096 numbers (8.2 GB) go to disk as the stage writes them, 50,000 a class.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from detection.backbones.head import Head
from detection.config.build import build
from detection.config.plain import CONF, plain
from detection.evaluation.detection import DetectionEvaluator
from detection.regions.row_files import RowFiles

IMAGES, KEPT, DIMENSIONS, CLASSES, POSITIVES = 5000, 200, 4096, 20, 250
SHARE = 0.25  # of numbers that ReLU leaves


class Detector(torch.nn.Module):
    """What the stage looks at."""

    num_classes = CLASSES
    scoring = "svm"

    def __init__(self) -> None:
        super().__init__()
        self.head = Head(DIMENSIONS, None, {"svm": ("pool5", CLASSES)})


def own_memory_gb() -> float:
    """Memory of this process and its workers that is their own.

    Not pages of files, which the system can drop.
    """
    kilobytes = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:  # it has just ended
            continue
        mine = {str(os.getpid())} & {status.parent.name, text.split("PPid:")[1].split()[0]}
        if mine and "RssAnon:" in text:
            kilobytes += int(text.split("RssAnon:")[1].split()[0])
    return kilobytes / 2**20


def main() -> None:
    trained = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["model=sppnet", "data=voc07"]))["model"]["stages"]["svm"]
    data: Any = SimpleNamespace(
        splits={"train": SimpleNamespace(searched=list(range(IMAGES)))},
        class_names=[str(c) for c in range(CLASSES)],
    )
    stage = build(config).stage(Detector(), data, DetectionEvaluator(), 1)
    generator = np.random.default_rng(0)
    shift = torch.distributions.Normal(0, 1).icdf(torch.tensor(1 - SHARE))
    pool = (torch.randn(20_000, DIMENSIONS) - shift).relu()
    pool *= 20 / pool.norm(dim=1).mean()
    peak, stop = [own_memory_gb()], threading.Event()
    base = peak[0]

    def watch() -> None:
        while not stop.is_set():
            peak.append(max(peak[-1], own_memory_gb()))
            time.sleep(0.05)

    with tempfile.TemporaryDirectory() as folder:
        stage.rows = RowFiles(Path(folder), 0, DIMENSIONS)
        rows = [stage.rows.append(pool[torch.from_numpy(generator.permutation(20_000))])
                for _ in range(IMAGES * KEPT // 20_000)]  # fmt: skip
        ids = generator.permutation(np.concatenate(rows))
        for label, some in enumerate(np.array_split(ids, CLASSES)):
            stage.examples[label].positives = some[:POSITIVES]
            stage.examples[label].add_negatives(some[POSITIVES:])
        del pool
        stage.weight, stage.bias = torch.zeros(CLASSES, DIMENSIONS), torch.zeros(CLASSES)
        base = own_memory_gb()
        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        with torch.no_grad():
            stage.train_classes(list(range(trained)))
        stop.set()
    print(
        f"{IMAGES * KEPT} negatives of {CLASSES} classes on disk; {trained} classes of "
        f"{len(some)} examples trained in "
        f"{time.perf_counter() - start:.0f} s"
    )
    maps = stage.options.memory_gb
    print(
        f"peak of own memory, workers included: {peak[-1]:.2f} GiB (before training {base:.2f}); "
        f"where features are not on disk, maps take up to {maps:.1f} GiB more"
    )


if __name__ == "__main__":
    main()
