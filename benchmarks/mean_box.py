"""The trivial localiser: the mean box of training for every image; its error on the true class.

python -m benchmarks.mean_box data=voc_loc data.root=FOLDER
"""

import sys

import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from detection.config.plain import CONF, plain
from detection.data.classification import ClassificationSplit
from detection.disk.images import image_size
from detection.metrics import LocalizationError
from detection.runs.train import build_data


def largest_boxes(split: ClassificationSplit) -> tuple[Tensor, Tensor]:
    """(I, 4) largest box of each image that has some, in shares; (I, 4) width, height, twice."""
    boxes, sizes = [], []
    for number in range(len(split)):
        some = split.target(number)["boxes"]
        if len(some):
            size = torch.tensor(image_size(split.path(number)) * 2)
            boxes.append(some[(some[:, 2:] - some[:, :2]).prod(dim=1).argmax()] / size)
            sizes.append(size)
    return torch.stack(boxes), torch.stack(sizes)


def main() -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = plain(compose("train", ["model=overfeat_localizer", *sys.argv[1:]]))
    data, _ = build_data(config["data"])
    data.setup()
    mean = largest_boxes(data.split("train"))[0].mean(dim=0)
    test, metric = data.split("test"), LocalizationError()
    for number in range(len(test)):
        target = test.target(number)
        box = mean * torch.tensor(image_size(test.path(number)) * 2)
        metric.update([{"labels": target["label"][None], "boxes": box[None]}], [target])
    error = float(metric.compute()["error"])
    print(f"{data.name}: the mean box is wrong in {100 * error:.1f} % of {len(test)} test images")


if __name__ == "__main__":
    main()
