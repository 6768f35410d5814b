"""How many boxes of each class there are, and how large: what to know before one trains."""

from collections.abc import Mapping, Sequence
from io import StringIO

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from detection.boxes import box_area
from detection.data.samples import Split
from detection.disk.images import image_size

MOST_CLASSES = 30  # shown; of more, those with the fewest boxes to train on
SHARES = (0.1, 0.5, 0.9)  # of the sides that are shown
MOST_IMAGES = 300  # whose objects' shares are looked at


def box_summary(gt: Mapping[str, tuple[Tensor, Tensor]], class_names: Sequence[str]) -> str:
    """A table: a row a class, its boxes in each split, and the sides of those to train on.

    A side is the root of a box's area in pixels; shown are those that 10, 50 and 90 % of the
    boxes do not pass.

    Args:
        gt: for each split, "train" among them, boxes (N, 4) and labels (N,).
        class_names: C names.
    """
    counts = {
        split: labels.bincount(minlength=len(class_names)) for split, (_, labels) in gt.items()
    }
    shown = counts["train"].argsort(stable=True)[:MOST_CLASSES].sort().values.tolist()
    title = "boxes of each class"
    if len(shown) < len(class_names):
        title += f" (the {len(shown)} with the fewest of {len(class_names)})"
    table = Table("", title=title)
    for split in gt:
        table.add_column(split, justify="right")
    for share in SHARES:
        table.add_column(f"{share:.0%}", justify="right")
    boxes, labels = gt["train"]
    sides = box_area(boxes).sqrt()
    for label in shown:
        table.add_row(
            class_names[label], *(str(int(c[label])) for c in counts.values()),
            *quantiles(sides[labels == label]),
        )  # fmt: skip
    table.add_section()
    table.add_row("all", *(str(int(c.sum())) for c in counts.values()), *quantiles(sides))
    table.caption = "10 %, 50 %, 90 %: of the boxes of train have no longer side, in pixels"
    text = StringIO()
    Console(file=text, width=100, markup=False).print(table)
    return text.getvalue()


def object_shares(split: Split) -> Tensor:
    """Sides of the objects of some images (N,), as shares of the images' shorter sides.

    Only the heads of the files are read, of a few hundred images spread over the split.
    """
    step = -(-len(split) // MOST_IMAGES)
    shares = [torch.zeros(0)]
    for index in range(0, len(split), step):
        boxes = split.target(index)["boxes"]
        if len(boxes):
            shares.append(box_area(boxes).sqrt() / min(image_size(split.path(index))))
    return torch.cat(shares)


def quantiles(sides: Tensor) -> list[str]:
    """Some sides in whole pixels; dashes where there are none."""
    if len(sides) == 0:
        return ["-"] * len(SHARES)
    return [f"{float(side):.0f}" for side in torch.quantile(sides, torch.tensor(SHARES))]
