"""OverFeat at scale 6 (461×569), fine: read densely, window by window, and by shifting the image.

The 630 windows are timed on a tenth of them. FLOPs are counted by torch.
"""

from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import seconds
from detection.backbones.overfeat import overfeat_accurate
from detection.classification.classifier import Classifier, GridFeatures
from detection.overfeat.dense import dense_logits
from detection.runtime.memory import keep_freed_memory

HEIGHT, WIDTH, INPUT = 461, 569, 221
STEP = 12  # pixels between two windows
EVERY = 10


def flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def report(name: str, time: float, count: float, ours: tuple[float, float]) -> None:
    print(
        f"{name}: {time:.2f} s ({time / ours[0]:.1f} times ours), "
        f"{count / 1e9:.0f} GFLOP ({count / ours[1]:.1f} times ours)"
    )


def main() -> None:
    keep_freed_memory()
    torch.manual_seed(0)
    backbone = overfeat_accurate(
        weights=None, width=1.0, init_std=0.01, input_px=INPUT,
        mean=[0.46] * 3, std=[0.24] * 3,
    )  # fmt: skip
    net = Classifier(GridFeatures(backbone), 1000).eval()
    image = torch.rand(1, 3, HEIGHT, WIDTH)
    # an image that holds every window whole: those of the dense map reach over its edge where
    # the network pads
    corners = [(STEP * y, STEP * x) for y in range(21) for x in range(30)]
    canvas = torch.nn.functional.pad(image, (0, 29 * STEP + INPUT - WIDTH + STEP, 0, STEP))

    def dense() -> torch.Tensor:
        return dense_logits(net, image, fine=True)

    def windows() -> list[torch.Tensor]:
        some = corners[::EVERY]
        return [net(canvas[:, :, y : y + INPUT, x : x + INPUT]) for y, x in some]

    def shifted() -> list[torch.Tensor]:
        shifts = [(STEP * y, STEP * x) for y in range(3) for x in range(3)]
        return [dense_logits(net, image[:, :, y:, x:], fine=False) for y, x in shifts]

    print(f"{torch.get_num_threads()} threads; {len(corners)} windows")
    with torch.no_grad():
        assert dense().shape[2] * dense().shape[3] == len(corners)
        times = [min(seconds(work) for _ in range(3)) for work in (dense, shifted)]
        one_by_one = seconds(windows) * len(corners) / len(corners[::EVERY])
        counts = [flops(work) for work in (dense, shifted)]
        of_windows = flops(windows) * len(corners) / len(corners[::EVERY])
    ours = (times[0], counts[0])
    report("dense, ours", *ours, ours)
    report("whole network at 9 shifts", times[1], counts[1], ours)
    report("window by window", one_by_one, of_windows, ours)


if __name__ == "__main__":
    main()
