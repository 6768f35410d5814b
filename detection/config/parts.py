"""The parts that models are made of, by name: all that a checkpoint can have built.

A checkpoint from somebody else is data. Its config says what to build, so nothing is built but what
stands in this list, with plain values, and nothing in it is resolved (`${oc.env:SECRET}`).
"""

import importlib
from functools import partial
from typing import Any

from detection.errors import UserError

PARTS = frozenset(
    {
        "detection.backbones.alexnet.alexnet",
        "detection.backbones.averaged.googlenet",
        "detection.backbones.averaged.resnet",
        "detection.backbones.caffenet.caffenet",
        "detection.backbones.efficientnet_lite.efficientnet_lite",
        "detection.backbones.overfeat.overfeat_accurate",
        "detection.backbones.overfeat.overfeat_fast",
        "detection.backbones.timm_networks.timm_network",
        "detection.backbones.vgg16.vgg16",
        "detection.backbones.zf5.zf5",
        "detection.classification.classifier.AverageFeatures",
        "detection.classification.classifier.Classifier",
        "detection.classification.classifier.GridFeatures",
        "detection.classification.classifier.published_features",
        "detection.classification.feature_svm.FeatureSVM",
        "detection.classification.views.CropViews",
        "detection.classification.views.ViewSet",
        "detection.classification.views.WholeViews",
        "detection.combine.accumulation.Accumulation",
        "detection.combine.nms.NMS",
        "detection.combine.voting.BoxVoting",
        "detection.localization.views.ScaledViews",
        "detection.object_scoring.localizer.ObjectScoring",
        "detection.object_scoring.views.SquareCrops",
        "detection.object_scoring.views.SquareMap",
        "detection.overfeat.dense.DenseViews",
        "detection.overfeat.detector.OverFeatDetector",
        "detection.overfeat.localizer.OverFeatLocalizer",
        "detection.proposals.selective_search.SelectiveSearch",
        "detection.proposals.squares.SquareGrid",
        "detection.regions.detector.RegionDetector",
        "detection.regions.warped_features.WarpedFeatures",
        "detection.rpn.anchors.Anchors",
        "detection.rpn.proposals.RPNSearch",
        "detection.rpn.rcnn.RPNWithRCNN",
        "detection.rpn.rpn.PerClassRPN",
        "detection.sppnet.features.SPPFeatures",
        "detection.sppnet.image_features.PyramidFeatures",
    }
)
PLAIN = (str, int, float, bool, type(None))


def build_part(tree: Any, **arguments: Any) -> Any:
    """What a checkpoint's config describes, from plain values and our listed parts.

    Args:
        tree: dicts, lists and plain values; a dict with `_target_` is a part, and with `_partial_`
            one that is still to be called.
        arguments: for the outermost part beside its own.

    Raises:
        UserError: it asks for what is no part, holds other values, or a part refuses its options.
    """
    if isinstance(tree, list):
        return [build_part(item) for item in tree]
    if not isinstance(tree, dict):
        if not isinstance(tree, PLAIN):
            raise UserError(
                f"the checkpoint's config holds a {type(tree).__name__}: it is no model"
            )
        return tree
    options = {key: build_part(value) for key, value in tree.items() if not is_word(key)}
    if "_target_" not in tree:
        return options
    part = part_of(tree["_target_"])
    if tree.get("_partial_"):
        return partial(part, **options)
    try:
        return part(**options, **arguments)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise UserError(f"the checkpoint's config of {tree['_target_']}: {error}") from error


def is_word(key: object) -> bool:
    """Whether a key says how to build, and is no option.

    Raises:
        UserError: it is one that no checkpoint of ours has (`_args_`, `_recursive_`), or no text.
    """
    if key in ("_target_", "_partial_"):
        return True
    if not isinstance(key, str) or key.startswith("_"):
        raise UserError(f"the checkpoint's config holds {key!r}: it is no model of this package")
    return False


def part_of(target: object) -> Any:
    """The class or function of a listed part.

    Raises:
        UserError: it is not in the list.
    """
    if not isinstance(target, str) or target not in PARTS:
        raise UserError(
            f"the checkpoint asks to run {target}, which is no part of a model: refused"
        )
    module, _, name = str(target).rpartition(".")
    return getattr(importlib.import_module(module), name)
