"""One test image, time by part: R-CNN and SPP-net on AlexNet and EfficientNet-Lite0, 20 classes.

python -m benchmarks.test_image [IMAGE]   (a drawn one of 500×375 by default)

Proposals are found once and not counted. Weights are random but for EfficientNet's, and every box
is scored, moved and suppressed. `svd` has fc6 and fc7 of rank 256 and 64 (Fast R-CNN, 3.1).
"""

import statistics
import sys
from collections import Counter
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

RUNS = 3
RANKS = (256, 64)
FIVE = "model.features.scales_px=[480,576,688,864,1200]"
ALEXNET = ("backbone=alexnet", "backbone.weights=null", "data=voc07", "schedule=paper")
LITE = ("backbone=efficientnet_lite0", "data=voc07", "schedule=paper")
CASES = {
    "R-CNN, AlexNet": ("model=rcnn", *ALEXNET),
    "SPP-net, AlexNet": ("model=sppnet", *ALEXNET),
    "SPP-net, AlexNet, 5 scales": ("model=sppnet", FIVE, *ALEXNET),
    "SPP-net, AlexNet, svd": ("model=sppnet", *ALEXNET),
    "R-CNN, Lite0": ("model=rcnn", *LITE),
    "SPP-net, Lite0": ("model=sppnet", *LITE),
    "SPP-net, Lite0, svd": ("model=sppnet", *LITE),
}
PARTS = {  # what a method does, and its part of the time
    "prepare": "convolutions",
    "distinct": "same cells",
    "pool": "pooling",
    "layers": "fc6, fc7",
    "combine": "NMS",
}


def made(name: str) -> Any:
    """A detector of 20 classes."""
    torch.manual_seed(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", list(CASES[name])))
    detector: Any = build_model(model_tree(config), 20).eval()
    detector.is_fitted[:] = True
    torch.nn.init.normal_(detector.head.output("svm").weight, std=1e-3)
    torch.nn.init.zeros_(detector.head.output("box_regressor").weight)
    if name.endswith("svd"):
        detector.head.factor(RANKS)
    return detector


def watched(detector: Any) -> Counter[str]:
    """Seconds that the detector's parts take from now on."""
    spent: Counter[str] = Counter()

    def watch(owner: Any, method: str, part: str) -> None:
        work: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **options: Any) -> Any:
            result: list[Any] = []
            spent[part] += seconds(lambda: (result.append(work(*args, **options)), wait()))
            return result[0]

        object.__setattr__(owner, method, timed)

    pooling = "warping, convolutions" if hasattr(detector.features, "warp") else "pooling"
    for method in ("prepare", "distinct", "pool"):
        watch(detector.features, method, pooling if method == "pool" else PARTS[method])
    watch(detector.head, "layers", PARTS["layers"])
    watch(detector, "combine", PARTS["combine"])
    return spent


def wait() -> None:
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@torch.no_grad()
def time_case(name: str, image: torch.Tensor, boxes: torch.Tensor) -> dict[str, float]:
    """Print the time by part in both precisions; the sums."""
    sums = {}
    for precision in ("float32", "bfloat16"):
        detector = made(name).to(image.device)
        detector.precision = precision
        spent, runs = watched(detector), []
        detector.detect(image, boxes)
        for _ in range(RUNS):
            spent.clear()
            whole = seconds(lambda model=detector: model.detect(image, boxes))
            runs.append({**spent, "outputs, the rest": whole - sum(spent.values())})
        parts = {part: statistics.median(run[part] for run in runs) for part in runs[0]}
        sums[precision] = sum(parts.values())
        told = ", ".join(f"{part} {time:.3f}" for part, time in parts.items() if time > 5e-4)
        print(f"{name:26s} {precision:8s} {sums[precision]:7.3f} s: {told}", flush=True)
    return sums


def main() -> None:
    keep_freed_memory()
    if len(sys.argv) > 1:
        pixels = read_image(Path(sys.argv[1]))
    else:
        options = ShapesOptions(min_side_px=375, max_side_px=500)
        pixels = draw_image(np.random.default_rng(1), options)[0]
    image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    boxes = made("SPP-net, AlexNet").propose(image)
    threads = torch.get_num_threads()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{image.shape[2]}×{image.shape[1]} image, {len(boxes)} proposals, {device}, "
          f"{threads} threads")  # fmt: skip
    image, boxes = image.to(device), boxes.to(device)
    sums = {name: time_case(name, image, boxes) for name in CASES}
    for name, of_case in sums.items():
        peer = "R-CNN, Lite0" if "Lite0" in name else "R-CNN, AlexNet"
        ratios = ", ".join(f"{p} {sums[peer][p] / time:.1f}" for p, time in of_case.items())
        if name != peer:
            print(f"{name} against {peer}: {ratios} times as fast")


if __name__ == "__main__":
    main()
