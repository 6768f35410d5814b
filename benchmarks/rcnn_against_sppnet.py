"""The test-time pass of R-CNN against SPP-net: the same backbone, image and boxes, by part.

python -m benchmarks.rcnn_against_sppnet [BOXES]   (proposals are not timed; 2000 by default)
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from hydra import compose, initialize_config_dir

from benchmarks.timing import seconds
from benchmarks.warp import some_boxes
from detection.config.build import build_model
from detection.config.plain import CONF, plain
from detection.regions.warped_features import warp_regions
from detection.runs.train import model_tree
from detection.runtime.memory import keep_freed_memory

FIVE = "model.features.scales_px=[480,576,688,864,1200]"


def made(*options: str) -> Any:
    """A detector with random weights and 20 classes."""
    torch.manual_seed(0)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["backbone=alexnet", "backbone.weights=null", "schedule=paper",
                                "data=voc07", *options])  # fmt: skip
        config = plain(cfg)
    detector: Any = build_model(model_tree(config), 20).eval()
    detector.is_fitted[:] = True
    torch.nn.init.normal_(detector.head.output("svm").weight, std=1e-3)
    torch.nn.init.zeros_(detector.head.output("box_regressor").weight)
    return detector


def timed(work: Callable[[], Any], device: str) -> tuple[float, Any]:
    """Seconds of a second call, and what it gives."""
    result: list[Any] = []

    def once() -> None:
        result.append(work())
        if device == "cuda":
            torch.cuda.synchronize()

    once()
    return seconds(once), result[0]


@torch.no_grad()
def parts(detector: Any, image: torch.Tensor, boxes: torch.Tensor) -> dict[str, float]:
    """Time of each part of the pass."""
    device, size = image.device.type, (int(image.shape[1]), int(image.shape[2]))
    features = detector.features
    times: dict[str, float] = {}
    prepare, prepared = timed(lambda: features.prepare(image), device)
    pool, pooled = timed(lambda: features.pool(prepared, boxes, size), device)
    if hasattr(features, "warp"):
        normalized = features.backbone.normalize(image)
        warp = [lambda b=b: warp_regions([normalized], [b], features.warp)
                for b in boxes.split(features.batch_size)]  # fmt: skip
        times["warping"] = sum(timed(w, device)[0] for w in warp)
        times["convolutions"] = pool - times["warping"]
    else:
        times["convolutions"], times["pooling"] = prepare, pool
    times["fc6, fc7"], fc7 = timed(lambda: detector.head.layers(pooled, "fc7"), device)
    times["SVM, boxes"], (scores, moved) = timed(
        lambda: (detector.head.output("svm")(fc7).float(), detector.move(pooled, boxes, size)),
        device,
    )
    region, label = torch.nonzero(scores > -1.5, as_tuple=True)
    found = {"boxes": moved[region, label].float(), "scores": scores[region, label],
             "labels": label}  # fmt: skip
    times["NMS"] = timed(lambda: detector.suppression(found), device)[0]
    return times


def main() -> None:
    keep_freed_memory()
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    boxes = some_boxes(count)
    image = torch.randint(0, 256, (3, 375, 500), dtype=torch.uint8)
    detectors = {"R-CNN": made("model=rcnn"), "SPP-net, 1 scale": made("model=sppnet"),
                 "SPP-net, 5 scales": made("model=sppnet", FIVE)}  # fmt: skip
    for device in ("cpu", *(["cuda"] if torch.cuda.is_available() else [])):
        totals = {}
        for name, detector in detectors.items():
            times = parts(detector.to(device), image.to(device), boxes.to(device))
            totals[name] = sum(times.values())
            told = ", ".join(f"{part} {time:.3f}" for part, time in times.items())
            print(f"{device} {name:17s} {totals[name]:7.3f} s: {told}")
        for name in ("SPP-net, 1 scale", "SPP-net, 5 scales"):
            print(f"{device} {name}: {totals['R-CNN'] / totals[name]:.1f} times as fast as R-CNN")


if __name__ == "__main__":
    main()
