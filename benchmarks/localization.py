"""Localisation of an image by OverFeat's accurate network at four scales, time by part.

Peer: the same windows, cropped and put through the same network one by one (some of them, and the
rest reckoned from these).

python -m benchmarks.localization [BACKBONE]
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from hydra import compose, initialize_config_dir

from detection.config.build import build_model
from detection.config.plain import CONF, plain
from detection.data.samples import Sample, as_image
from detection.runs.train import model_tree

CLASSES, CROPS, TIMES = 1000, 12, 3


def seconds(run: Callable[[], object]) -> float:
    """The best of some runs."""
    taken = []
    for _ in range(TIMES):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


@torch.no_grad()
def main() -> None:
    backbone = sys.argv[1] if len(sys.argv) > 1 else "overfeat_accurate"
    words = ["model=overfeat_localizer", f"backbone={backbone}", "data=ilsvrc_loc"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", words))
    torch.manual_seed(0)
    model = build_model(model_tree(config), CLASSES).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (375, 500, 3), np.uint8)
    stored = Sample(as_image(pixels), {}, "noise", 0)
    sample = model.transform(stored)
    views, frames = sample.views[0], model.views.frames(sample.size)
    maps = [model.maps(view) for view in views]
    rows = [model.windows.rows(one) for one in maps]
    seen = [model.look(view, frame) for view, frame in zip(views, frames, strict=True)]
    labels = torch.arange(5)
    found = model.read(sample).candidates(labels)
    parts = {
        "scaling": lambda: model.transform(stored),
        "convolutions": lambda: [model.maps(view) for view in views],
        "windows": lambda: [model.windows.rows(one) for one in maps],
        "classes": lambda: [model.logits(one, r) for one, r in zip(maps, rows, strict=True)],
        "boxes": lambda: [model.regressor.layers(r) for r in rows],
        "last layer": lambda: [model.boxes(one, labels, sample.size) for one in seen],
        "merging": lambda: model.combine(found),
    }
    taken = {name: seconds(run) for name, run in parts.items()}
    whole = seconds(lambda: model.predict([sample]))
    windows = sum(len(r) for r in rows)
    rate = f"{whole:.2f} s an image, {1 / whole:.2f} a second"
    print(f"{backbone}, {len(views)} scales, {windows} windows: {rate}")
    print("  " + ", ".join(f"{name} {1000 * value:.0f} ms" for name, value in taken.items()))
    side = model.windows.input_px
    crop = torch.zeros(3, side, side, dtype=torch.uint8)

    def one_crop() -> None:
        features = model.maps(crop)
        row = model.windows.rows(features)
        model.logits(features, row)
        model.regressor.layers(row)

    single = seconds(lambda: [one_crop() for _ in range(CROPS)]) / CROPS
    print(f"  cropped one by one: {single * windows:.1f} s ({single * windows / whole:.1f} times)")


if __name__ == "__main__":
    main()
