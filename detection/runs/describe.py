"""The course of `detection.describe`: parameters, connections and maps of a classifier."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from rich.console import Console, Group
from rich.table import Table

from detection.config.command import run
from detection.config.help import asks_for_help
from detection.config.plain import CONF, plain
from detection.errors import UserError
from detection.report.tables import shown

CLASSES = 1000  # ImageNet's
HELP = """python -m detection.describe model=MODEL [backbone=BACKBONE] [OPTION=VALUE ...]

Prints parameters, connections, stride, receptive field and map sizes of a classifier.

  model=overfeat       or sppnet_classifier, classifier
  backbone=resnet50    or any other (see python train.py --help)
  input=245x245        height and width of an input other than the network's own
  experiment=overfeat/table5/scale_2   a row of OverFeat's tables 4 and 5, its figures beside ours
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
    from detection.config.build import build_model, without
    from detection.overfeat.dense import dense_sizes
    from detection.runs.train import model_tree

    size = [word.removeprefix("input=") for word in words if word.startswith("input=")]
    given = [word for word in words if not word.startswith("input=")]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", words_of(given))
    config = plain(cfg)
    if "train" not in config["model"]["stages"]:
        raise UserError("model= must be a classifier: overfeat, sppnet_classifier, classifier")
    with torch.device("meta"):
        network: Classifier = build_model(without(model_tree(config), "weights"), CLASSES)
        backbone = network.features.backbone
        own = (backbone.input_px, backbone.input_px)
        height, width = input_size(size[-1]) if size else only_view(config) or own
        backbone.check_input(min(height, width), "input")
        found = facts(network, height, width)
    table = Table("layer", "map", title=f"{' '.join(given)}, {height}×{width}, {CLASSES} classes")
    pooled = " + ".join(f"{n}×{n}" for n in network.features.sides)
    for name, rows, columns in found.maps:
        if name == "Linear" and pooled:
            table.add_row("pool5", pooled)
            pooled = ""
        table.add_row(name, f"{rows}×{columns}")
    figures = {"model/parameters": float(found.parameters)}
    figures["model/connections"] = float(found.connections)
    for name, label, rows, columns in dense_sizes(network, height, width):
        table.add_row(label, f"{rows}×{columns}")
        figures |= {f"maps/{name}_rows": rows, f"maps/{name}_columns": columns}
    field = backbone.field
    summary = (
        f"{found.parameters:,} parameters, {found.connections / 1e6:,.0f} M connections; the map "
        f"before the last pooling has stride {field.stride}"
    )
    if field.size > field.stride:  # that of timm's networks is not known
        summary += f", and a cell sees {field.size} pixels a side"
    return Group(table, summary, *beside_paper(figures, config["published"]))


def words_of(given: Sequence[str]) -> list[str]:
    """Overrides, with data to compose on where no row of a table brings its own."""
    is_row = any(word.startswith("experiment=") for word in given)
    return list(given) if is_row else ["data=shapes_cls", "schedule=paper", *given]


def only_view(config: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width of the only scale at which a config looks at images densely, if it does."""
    sizes = (config["views"].get("kinds") or {}).get("dense", {}).get("sizes", [])
    return (sizes[0][0], sizes[0][1]) if len(sizes) == 1 and isinstance(sizes[0], list) else None


def beside_paper(figures: Mapping[str, float], published: Mapping[str, float]) -> list[Table]:
    """The published sizes beside ours; nothing where none are."""
    table = Table("", "measured", "published", title="beside the paper")
    for name in (name for name in published if name in figures):
        table.add_row(name, shown(name, figures[name]), shown(name, published[name]))
    return [table] if table.rows else []


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
