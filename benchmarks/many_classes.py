"""Scoring 2,000 regions of 4,096 features against 10,000 linear classifiers (R-CNN, section 2.2).

python -m benchmarks.many_classes
"""

import statistics

import torch

from benchmarks.timing import seconds
from detection.runtime.memory import keep_freed_memory


@torch.no_grad()
def main() -> None:
    keep_freed_memory()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    for device in devices:
        for dtype in (torch.float32, torch.bfloat16):
            features = torch.randn(2000, 4096, device=device, dtype=dtype)
            svm = torch.nn.Linear(4096, 10_000, device=device, dtype=dtype)

            def score() -> None:
                svm(features)  # noqa: B023
                if device == "cuda":  # noqa: B023
                    torch.cuda.synchronize()

            score()
            time = statistics.median(seconds(score) for _ in range(5))
            rate = 2 * 2000 * 4096 * 10_000 / time / 1e9
            print(f"{device} {dtype}: {time:.3f} s an image, {rate:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
