"""The course of `detection.describe`: parameters, connections and maps of a classifier."""

import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from rich.console import Console, Group
from rich.table import Table

from detection.config.command import run
from detection.config.help import asks_for_help
from detection.config.plain import CONF, plain
from detection.errors import UserError

CLASSES = 1000  # ImageNet's
HELP = """python -m detection.describe model=MODEL [backbone=BACKBONE] [OPTION=VALUE ...]

Prints parameters, connections, stride, receptive field and map sizes of a classifier.

  model=overfeat       or sppnet_classifier, classifier
  backbone=resnet50    or any other (see python train.py --help)
  input=245x245        height and width of an input other than the network's own
  OPTION=VALUE         any option of train.py that the network depends on"""


def describe(words: Sequence[str]) -> Group:
    """Parameters, connections, stride, receptive field and map sizes of a classifier, dense too.

    Args:
        words: overrides as of train.py, and `input=HEIGHTxWIDTH`.

    Raises:
        UserError: the model is no classifier, or the input is no size.
    """
    import torch

    from detection.backbones.facts import facts
    from detection.classification.classifier import Classifier
    from detection.config.build import build_model, without_weights
    from detection.overfeat.dense import dense_sizes
    from detection.runs.train import model_tree

    size = [word.removeprefix("input=") for word in words if word.startswith("input=")]
    given = [word for word in words if not word.startswith("input=")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["data=shapes_cls", "schedule=paper", *given])
    config = plain(cfg)
    if "train" not in config["model"]["stages"]:
        raise UserError("model= must be a classifier: overfeat, sppnet_classifier, classifier")
    with torch.device("meta"):
        network: Classifier = build_model(without_weights(model_tree(config)), CLASSES)
        backbone = network.features.backbone
        height, width = input_size(size[-1]) if size else (backbone.input_px, backbone.input_px)
        backbone.check_input(min(height, width), "input")
        found = facts(network, height, width)
    table = Table("layer", "map", title=f"{' '.join(given)}, {height}×{width}, {CLASSES} classes")
    pooled = " + ".join(f"{n}×{n}" for n in network.features.sides)
    for name, rows, columns in found.maps:
        if name == "Linear" and pooled:
            table.add_row("pool5", pooled)
            pooled = ""
        table.add_row(name, f"{rows}×{columns}")
    for name, rows, columns in dense_sizes(network, height, width):
        table.add_row(name, f"{rows}×{columns}")
    field = backbone.field
    summary = (
        f"{found.parameters:,} parameters, {found.connections / 1e6:,.0f} M connections; the map "
        f"before the last pooling has stride {field.stride}"
    )
    if field.size > field.stride:  # that of timm's networks is not known
        summary += f", and a cell sees {field.size} pixels a side"
    return Group(table, summary)


def input_size(text: str) -> tuple[int, int]:
    """Height and width of a text such as 281x317."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise UserError(f"input={text}: expected a size such as 281x317")
    return int(sides[0]), int(sides[1])


def main() -> None:
    """The command."""
    if asks_for_help(sys.argv[1:]):
        print(HELP)
        return
    run(lambda: Console().print(describe(sys.argv[1:])))
