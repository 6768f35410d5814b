"""The per-class RPN's outputs for 5 of 1,000 classes: gathered weights against the whole tensor.

A map of 32×32 cells and 9 anchors: time, and the memory that each adds at its peak, in processes of
their own. And a training step at 32 crops, gathered and whole.

python -m benchmarks.rpn_head
"""

import resource
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from detection.backbones.backbone import ReceptiveField
from detection.boxes import decode
from detection.rpn.anchors import Anchors
from detection.rpn.head import RPNHead

CHANNELS, CLASSES, ASKED, CELLS, CROPS, TIMES = 2048, 1000, 5, 32, 32, 3
ANCHORS = Anchors([64, 128, 224])


def made() -> tuple[RPNHead, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = RPNHead(CHANNELS, len(ANCHORS), CLASSES, None)
    anchors = ANCHORS.boxes(ReceptiveField(16, 1, 8.0), (CELLS, CELLS))
    return head, torch.randn(1, CHANNELS, CELLS, CELLS), anchors


@torch.no_grad()
def test_gathered() -> torch.Tensor:
    head, features, anchors = STATE
    labels = torch.arange(0, CLASSES, CLASSES // ASKED)
    scores, codes = head.for_classes(features, labels)
    return decode(anchors[:, None], codes).sum() + scores.sigmoid().sum()


@torch.no_grad()
def test_whole() -> torch.Tensor:
    head, features, anchors = STATE
    labels = torch.arange(0, CLASSES, CLASSES // ASKED)
    count = len(ANCHORS)
    score = head.score(features).view(count, CLASSES, -1).permute(2, 0, 1).reshape(-1, CLASSES)
    box = head.box(features).view(count, CLASSES, 4, -1).permute(3, 0, 1, 2)
    boxes = decode(anchors[:, None], box.reshape(-1, CLASSES, 4))
    return boxes[:, labels].sum() + score.sigmoid()[:, labels].sum()


def step(whole: bool) -> torch.Tensor:
    """Loss and gradients of eight anchors each of some crops of 7×7 cells."""
    head = STATE[0]
    maps = torch.randn(CROPS, CHANNELS, 7, 7)
    image = torch.arange(CROPS).repeat_interleave(8)
    cell, anchor = torch.randint(49, image.shape), torch.randint(len(ANCHORS), image.shape)
    labels = torch.randint(CLASSES, (CROPS,))[image]
    if whole:
        score = head.score(maps).view(CROPS, len(ANCHORS), CLASSES, 49)
        box = head.box(maps).view(CROPS, len(ANCHORS), CLASSES, 4, 49)
        logits, codes = score[image, anchor, labels, cell], box[image, anchor, labels, :, cell]
    else:
        logits, codes = head.at(maps[image, :, cell // 7, cell % 7], anchor, labels)
    loss = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits)) + codes.abs().mean()
    loss.backward()
    return loss.detach()


RUNS = {
    "test, gathered": test_gathered, "test, whole": test_whole,
    "step, gathered": lambda: step(False), "step, whole": lambda: step(True),
}  # fmt: skip


def main() -> None:
    if len(sys.argv) > 1:
        global STATE
        STATE = made()
        torch.set_num_threads(1)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        taken = []
        for _ in range(TIMES):
            start = time.perf_counter()
            RUNS[sys.argv[1]]()
            taken.append(time.perf_counter() - start)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{sys.argv[1]}: {1000 * min(taken):.1f} ms, {grown:.0f} MiB over the weights")
        return
    for name in RUNS:
        command = [sys.executable, "-m", "benchmarks.rpn_head", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
