"""Merging 3,000 candidates of 5 classes: the compiled loop against the plain one, and against NMS.

python -m benchmarks.accumulation
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torchvision.ops import batched_nms

from detection.combine.accumulation import Accumulation

CLASSES, OBJECTS, EACH = 5, 4, 150  # boxes about each of some objects of each class


def candidates() -> dict[str, torch.Tensor]:
    """Boxes about 20 objects, as a regressor says them of many places."""
    generator = np.random.default_rng(0)
    centre = generator.uniform(50, 450, (CLASSES * OBJECTS, 1, 2))
    side = generator.uniform(60, 200, (CLASSES * OBJECTS, 1, 2))
    corners = np.concatenate([centre - side / 2, centre + side / 2], 2)
    boxes = corners + generator.normal(0, 12, (CLASSES * OBJECTS, EACH, 4))
    labels = np.repeat(np.arange(CLASSES), OBJECTS * EACH)
    return {
        "boxes": torch.from_numpy(boxes.reshape(-1, 4)).float(),
        "scores": torch.from_numpy(generator.random(len(labels))).float(),
        "labels": torch.from_numpy(labels),
    }


def naive(found: dict[str, torch.Tensor], options: Accumulation) -> dict[int, list[list[float]]]:
    """Section 4.3 as it stands: all pairs in numpy, row by row, again and again."""
    result = {}
    for label in range(CLASSES):
        mine = found["labels"] == label
        rows = torch.cat([found["boxes"][mine].double(), found["scores"][mine, None].double()], 1)
        things = sorted(map(tuple, rows.tolist()))
        while True:
            table = np.array(things)
            least, pair = np.inf, (-1, -1)
            for i in range(len(table) - 1):
                match = matches(table[i, :4], table[i + 1 :, :4], options)
                j = int(match.argmin())
                if match[j] < least:
                    least, pair = match[j], (i, i + 1 + j)
            if least > options.max_match_score:
                break
            one, other = things[pair[0]], things.pop(pair[1])
            mean = [(1.0 * a + 1.0 * b) / 2.0 for a, b in zip(one[:4], other[:4], strict=True)]
            things[pair[0]] = (*mean, one[4] + other[4])
        result[label] = sorted([list(thing) for thing in things], key=lambda row: -row[4])
    return result


def matches(box: np.ndarray, others: np.ndarray, options: Accumulation) -> np.ndarray:
    """Match scores of a box with others."""
    areas = [(b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1]) for b in (box, others)]
    dx = (box[0] + box[2] - others[:, 0] - others[:, 2]) / 2
    dy = (box[1] + box[3] - others[:, 1] - others[:, 3]) / 2
    away = np.sqrt(dx**2 + dy**2) / np.sqrt((areas[0] + areas[1]) / 2)
    wide = np.minimum(box[2], others[:, 2]) - np.maximum(box[0], others[:, 0])
    high = np.minimum(box[3], others[:, 3]) - np.maximum(box[1], others[:, 1])
    shared = np.maximum(wide, 0) * np.maximum(high, 0) / np.maximum(areas[0], areas[1])
    return options.distance_weight * away + options.intersection_weight * (1 - shared)


def seconds(run: Callable[[], object], times: int) -> float:
    """The best of some runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    torch.set_num_threads(1)
    found = candidates()
    options = Accumulation(max_per_image=None, max_per_class=10_000)
    merged = options(found)  # compiled
    start = time.perf_counter()
    wanted = naive(found, options)
    plain = time.perf_counter() - start
    for label, rows in wanted.items():
        mine = merged["labels"] == label
        assert torch.allclose(merged["boxes"][mine], torch.tensor(rows)[:, :4].float()), label
        assert torch.allclose(merged["scores"][mine], torch.tensor(rows)[:, 4].float()), label
    ours = seconds(lambda: options(found), 10)
    nms = seconds(lambda: batched_nms(found["boxes"], found["scores"], found["labels"], 0.3), 10)
    print(
        f"{len(found['boxes'])} candidates of {CLASSES} classes → {len(merged['boxes'])} boxes, "
        f"the same: ours {1000 * ours:.1f} ms, plain {plain:.2f} s ({plain / ours:.0f} times), "
        f"batched_nms {1000 * nms:.1f} ms"
    )


if __name__ == "__main__":
    main()
