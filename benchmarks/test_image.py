"""One VOC-sized test image, time by part, in float32 and bfloat16: SPP-net on AlexNet, 20 classes.

python -m benchmarks.test_image [IMAGE]   (a drawn one of 500×375 by default)
"""

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from benchmarks.timing import seconds
from detection.config.build import build_model
from detection.config.plain import CONF, plain
from detection.data.shapes.draw import ShapesOptions, draw_image
from detection.disk.images import read_image
from detection.runs.train import model_tree
from detection.runtime.memory import keep_freed_memory

RUNS = 5


def median(work: Callable[[], object]) -> float:
    work()
    return statistics.median(seconds(work) for _ in range(RUNS))


def time_parts(detector: Any, image: torch.Tensor, boxes: torch.Tensor, precision: str) -> float:
    """Print the time of each part behind the proposals; their sum."""
    size = (int(image.shape[1]), int(image.shape[2]))
    features = detector.features
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        prepared = features.prepare(image)
        pooled = features.pool(prepared, boxes, size)
        fc7 = detector.head.layers(pooled)
        scores, moved = detector.score(pooled), detector.move(pooled, boxes, size)
        region, label = (scores > -1.5).nonzero(as_tuple=True)
        candidates = {
            "boxes": moved[region, label], "scores": scores[region, label], "labels": label
        }  # fmt: skip
        svm = detector.head.output("svm")
        times = {
            "convolutions": median(lambda: features.prepare(image)),
            "pooling": median(lambda: features.pool(prepared, boxes, size)),
            "fc6, fc7": median(lambda: detector.head.layers(pooled)),
            "SVM, boxes": median(lambda: (svm(fc7), detector.move(pooled, boxes, size))),
            "NMS": median(lambda: detector.suppression(candidates)),
        }
    for part, time in times.items():
        print(f"  {precision:8s} {part:14s} {time:.3f} s")
    return sum(times.values())


@torch.no_grad()
def main() -> None:
    keep_freed_memory()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["backbone=alexnet", "backbone.weights=null", "schedule=paper"])
        config = plain(cfg)
    detector = build_model(model_tree(config), 20).eval()
    detector.is_fitted[:] = True
    torch.nn.init.normal_(detector.head.output("svm").weight, std=1e-3)
    torch.nn.init.zeros_(detector.head.output("box_regressor").weight)
    if len(sys.argv) > 1:
        pixels = read_image(Path(sys.argv[1]))
    else:
        options = ShapesOptions(min_side_px=375, max_side_px=500)
        pixels = draw_image(np.random.default_rng(1), options)[0]
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    boxes = detector.propose(image)
    print(
        f"{image.shape[2]}×{image.shape[1]} image, {len(boxes)} proposals, "
        f"{torch.get_num_threads()} threads"
    )
    print(f"  proposals          {seconds(lambda: detector.propose(image)):.3f} s")
    totals = {p: time_parts(detector, image, boxes, p) for p in ("float32", "bfloat16")}
    print(
        f"  without proposals: float32 {totals['float32']:.3f} s, bfloat16 "
        f"{totals['bfloat16']:.3f} s, {totals['float32'] / totals['bfloat16']:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
