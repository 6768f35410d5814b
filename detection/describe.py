"""What a network's paper tells of it: `python -m detection.describe model=overfeat [OPTION=VALUE]`.

Options are those of train.py; `input=245x245` is another input than the network's own.
"""

import sys
from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from rich.console import Console, Group
from rich.table import Table

from detection.config.command import run
from detection.config.plain import CONF
from detection.errors import UserError

CLASSES = 1000  # ImageNet's
CLASSIFIER = "detection.classification.classifier.Classifier"


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
    from detection.config.plain import plain
    from detection.disk.checkpoints import make_detector
    from detection.overfeat.dense import dense_sizes

    size = [word.removeprefix("input=") for word in words if word.startswith("input=")]
    given = [word for word in words if not word.startswith("input=")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", ["data=shapes_cls", "recipe=paper", "backbone.weights=null", *given])
    config = plain(cfg)
    with torch.device("meta"):
        if config["model"]["detector"]["_target_"] != CLASSIFIER:
            raise UserError("model= must be a classifier: overfeat, sppnet_classifier, classifier")
        network = make_detector({"backbone": config["backbone"], **config["model"]}, CLASSES)
        assert isinstance(network, Classifier)
        backbone = network.features.backbone
        height, width = input_size(size[-1]) if size else (backbone.input_px, backbone.input_px)
        backbone.refuse_small(min(height, width), "input")
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
    summary = (
        f"{found.parameters:,} parameters, {found.connections / 1e6:,.0f} M connections; the map "
        f"before the last pooling has stride {backbone.field.stride}, and a cell sees "
        f"{backbone.field.size} pixels a side"
    )
    return Group(table, summary)


def input_size(text: str) -> tuple[int, int]:
    """Height and width of a text such as 281x317."""
    sides = text.split("x")
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise UserError(f"input={text}: such as 281x317 is wanted")
    return int(sides[0]), int(sides[1])


def main() -> None:
    """The command."""
    run(lambda: Console().print(describe(sys.argv[1:])))


if __name__ == "__main__":
    main()
