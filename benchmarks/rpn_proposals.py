"""Proposals of a learnt network against selective search on the same photographs: speed and recall.

python -m benchmarks.rpn_proposals RUN FOLDER

RUN is of `train.py model=sppnet proposals=rpn data=voc data.root=FOLDER`; its test images are
looked at one by one, in one thread. Selective search's boxes stand in the paper's order, the
network's by score.
"""

import sys
import time

import torch
from hydra import compose, initialize_config_dir

from detection.combine.nms import NMS
from detection.config.plain import CONF, plain
from detection.disk.checkpoints import read_checkpoint, restore_model
from detection.disk.images import read_image
from detection.proposals.recall import ProposalRecall
from detection.proposals.selective_search import SelectiveSearch
from detection.proposals.source import ProposalSource
from detection.runs.train import build_data

COUNTS, IOUS = (100, 200, 2000), (0.5, 0.7)


def main() -> None:
    run, folder = sys.argv[1:3]
    model = restore_model(read_checkpoint(run))
    learnt = model.search
    learnt.select = NMS(learnt.select.max_iou, max(COUNTS), max(COUNTS))
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["data=voc", f"data.root={folder}"]))
    data, _ = build_data(config["data"])
    data.setup("test")
    split = data.split("test")
    images = [read_image(split.path(index)) for index in split.searched]
    torch.set_num_threads(1)
    sources: dict[str, ProposalSource] = {
        "selective search, fast": SelectiveSearch(),
        "selective search, quality": SelectiveSearch(mode="quality"),
        "RPN": learnt,
    }
    for name, search in sources.items():
        search(images[0])  # what is compiled or set up once
        start = time.perf_counter()
        found = [search(image) for image in images]
        seconds = (time.perf_counter() - start) / len(images)
        count = sum(len(boxes) for boxes in found) / len(images)
        print(
            f"{name}: {seconds:.3f} s an image, {count:.0f} boxes, {count / seconds:.0f} a second"
        )
        for most in COUNTS:
            split.store = [boxes[:most] for boxes in found]
            recall = ProposalRecall.of(split)
            shares = ", ".join(f"{100 * recall.at(iou):.1f} % at {iou}" for iou in IOUS)
            print(f"  recall of the first {most}: {shares}")


if __name__ == "__main__":
    main()
