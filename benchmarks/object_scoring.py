"""Object scoring: 140 squares read from one map, against 140 crops through the network.

python -m benchmarks.object_scoring RUN [IMAGES]

RUN is a finished run of `model=object_scoring`; its first test images (10) are scored both ways.
Printed: time an image, how the scores of the true class agree, and the box's error either way.
"""

import sys

import torch

from benchmarks.timing import compare
from detection.boxes import box_iou
from detection.data.samples import Sample
from detection.disk.checkpoints import read_checkpoint, restore_model
from detection.object_scoring.localizer import ObjectScoring
from detection.object_scoring.views import SquareCrops, SquareMap
from detection.runs.train import build_data

SIDES = {SquareCrops: [672], SquareMap: [448]}  # conf/scales


def main() -> None:
    content = read_checkpoint(sys.argv[1])
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    data, _ = build_data(content["data"])
    data.setup()
    split = data.split("test")
    chosen = torch.linspace(0, len(split) - 1, count).long().tolist()
    models: list[ObjectScoring] = []
    samples: list[list[Sample]] = []
    for kind, sizes in SIDES.items():
        model: ObjectScoring = restore_model(content)
        model.views = kind(sizes)
        model.views.bind(model.grid, model.scorer)
        models.append(model)
        samples.append([model.views(split.sample(i, max(sizes))) for i in chosen])
    crops, pooled = models
    compare(
        f"140 squares, an image ({torch.get_num_threads()} threads)",
        lambda: pooled.square_scores(samples[1][0]), "crops",
        lambda: crops.square_scores(samples[0][0]), runs=3,
    )  # fmt: skip
    agreement, right = [], {"crops": 0, "one map": 0}
    for cut, whole in zip(*samples, strict=True):
        label = cut.target["label"]
        scores = [
            model.square_scores(s)[:, int(label)]
            for model, s in ((crops, cut), (pooled, whole))
        ]  # fmt: skip
        agreement.append(float(torch.corrcoef(torch.stack(scores))[0, 1]))
        for name, values in zip(right, scores, strict=True):
            with torch.no_grad():
                box = crops.boxes(values[None], label[None], cut.size)
            right[name] += int(box_iou(box, cut.target["boxes"]).max() >= 0.5)
    print(f"correlation of the true class's scores: mean {sum(agreement) / count:.3f}, "
          f"lowest {min(agreement):.3f}; error on the true class, by the regressor of the run: "
          + ", ".join(f"{k} {100 * (1 - v / count):.1f} %" for k, v in right.items()))  # fmt: skip


if __name__ == "__main__":
    main()
