"""Parameters, connections and map sizes of the networks beside what the papers print.

OverFeat's tables 1, 3, 4 and 5, SPP-net's maps of section 3.1. Exits with 1 where something but a
known misprint differs.
"""

import sys
from functools import partial

import torch
from rich.console import Console
from rich.table import Table

from detection.backbones.backbone import Backbone
from detection.backbones.facts import facts
from detection.backbones.overfeat import overfeat_accurate, overfeat_fast
from detection.backbones.zf5 import zf5
from detection.classification.classifier import Classifier, GridFeatures
from detection.overfeat.dense import dense_sizes

INPUT = {"weights": None, "mean": [0.5] * 3, "std": [0.25] * 3, "width": 1.0}
fast = partial(overfeat_fast, **INPUT, init_std=0.01, input_px=231)
accurate = partial(overfeat_accurate, **INPUT, init_std=0.01, input_px=221)
CONNECTIONS_RTOL = 0.005  # the paper rounds, and does not say what it counts beside weights

# Inputs of convolutions and of the first two fully connected layers. "Spatial input size".
LAYERS = {
    "table 1": (fast, 231, [231, 24, 12, 12, 12, 6, 1],
                {1: (28, "misprint: 24 is that layer's convolution's output; its input is 28")}),
    "table 3": (accurate, 221, [221, 36, 15, 15, 15, 15, 5, 1], {}),
}  # fmt: skip
# Parameters and connections in millions.
COUNTS = {"fast": (fast, 231, 145, 2810), "accurate": (accurate, 221, 144, 5369)}
# Layer 5 before pooling, behind it, classifier map, interleaved.
SCALES = [
    ((245, 245), ["17×17", "5×5", "1×1", "3×3"]),
    ((281, 317), ["20×23", "6×7", "2×3", "6×9"]),
    ((317, 389), ["23×29", "7×9", "3×5", "9×15"]),
    ((389, 461), ["29×35", "9×11", "5×7", "15×21"]),
    ((425, 497), ["32×35", "10×11", "6×7", "18×24"]),
    ((461, 569), ["35×44", "11×14", "7×10", "21×30"]),
]
# The arithmetic, and the row's own last column, want 38: 24 = 3 · 8, not 3 · 7.
MISPRINTS = {"32×35": "32×38", "10×11": "10×12", "6×7": "6×8"}
ZF5_MAPS = {224: 13, 180: 10}  # SPP-net, 2.3 and 3.1

different: list[str] = []


def classifier(backbone: Backbone) -> Classifier:
    return Classifier(GridFeatures(backbone), 1000)


def beside(table: Table, what: str, paper: object, ours: object, note: str = "") -> None:
    """A row; what differs without a note is counted."""
    if paper != ours and not note:
        different.append(what)
    table.add_row(what, str(paper), str(ours), note)


def layers(table: Table) -> None:
    for title, (make, side, published, misprints) in LAYERS.items():
        backbone = make()
        found = facts(classifier(backbone), side, side)
        ours = [side]
        for kind, height, _ in found.maps:
            if kind == "Conv2d":
                ours.append(height)
            elif kind == "MaxPool2d":
                ours[-1] = height
        ours[-1] = backbone.fc6_grid  # the last pooling is not among the convolutions
        ours.append(1)
        for number, (theirs, mine) in enumerate(zip(published, ours, strict=True)):
            right, note = misprints.get(number, (theirs, ""))
            beside(table, f"{title}: input of layer {number + 1}", theirs, mine,
                   note if mine == right else "")  # fmt: skip


def counts(table: Table) -> None:
    for name, (make, side, parameters, connections) in COUNTS.items():
        found = facts(classifier(make()), side, side)
        note = f"{found.parameters:,}"
        millions = int(found.parameters / 1e6)
        beside(table, f"table 4: {name}, parameters (M)", parameters, millions)
        near = abs(found.connections / 1e6 / connections - 1) < CONNECTIONS_RTOL
        ours = found.connections / 1e6
        beside(table, f"table 4: {name}, connections (M)", connections, f"{ours:.0f}",
               f"{ours / connections - 1:+.2%}; {note} parameters" if near else "")  # fmt: skip


def scales(table: Table) -> None:
    net = classifier(accurate())
    names = ("layer 5", "pooled, an offset", "classifier, an offset", "interleaved")
    for number, ((height, width), published) in enumerate(SCALES, 1):
        backbone = net.features.backbone
        before = f"{backbone.map_side(height)}×{backbone.map_side(width)}"
        ours = [before, *(f"{h}×{w}" for _, h, w in dense_sizes(net, height, width))]
        for name, theirs, mine in zip(names, published, ours, strict=True):
            misprint = number == 5 and MISPRINTS.get(theirs) == mine
            note = "misprint: its own last column needs ours" if misprint else ""
            beside(table, f"table 5: scale {number}, {height}×{width}, {name}", theirs, mine, note)


def spp(table: Table) -> None:
    backbone = zf5(**INPUT, padding="paper", normalization="channel", input_px=224)
    for side, cells in ZF5_MAPS.items():
        beside(table, f"SPP-net: conv5 of ZF-5 at {side}", cells, backbone.map_side(side))


def main() -> int:
    table = Table("", "paper", "computed", "")
    with torch.device("meta"):
        for part in (layers, counts, scales, spp):
            part(table)
            table.add_section()
    Console(width=130).print(table)
    print(f"{len(different)} differ without a note" + "".join(f"\n  {name}" for name in different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
