"""Reads older checkpoints: the same weights under other names, options that came later."""

from typing import Any

from detection.errors import UserError

OLDER_FORMAT = 1
RENAMED = {
    "detection.combine.nms.Suppression": "detection.combine.nms.NMS",
    "detection.rcnn.features.WarpedFeatures": "detection.regions.warped_features.WarpedFeatures",
}
HEAD = ("fc6", "fc7")
OPENCV = {"engine": "opencv", "max_side_px": None}
OUTPUTS = ("classifier", "svm", "box_regressor")
REGION_DETECTOR = "detection.regions.detector.RegionDetector"


def upgraded(content: dict[str, Any]) -> dict[str, Any]:
    """The content of an older checkpoint in today's form.

    Args:
        content: with `config` (backbone, features, detector, data, views), `class_names` and
            `state_dict`.

    Raises:
        UserError: it lacks one of them.
    """
    try:
        config = content["config"]
        features = renamed({**config["features"], "backbone": dict(config["backbone"])})
        model = renamed({**config["detector"], "features": features})
        data = dict(config["data"])
        state = content["state_dict"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint lacks {error}: it was written by another version"
        ) from None
    of_regions = model["_target_"] == REGION_DETECTOR
    if not of_regions:
        model["side_px"] = data.get("side_px")
        model["views"] = config.get("views")
    weights = {new_key(key, of_regions): value for key, value in state.items()}
    return {
        "version": content.get("version", ""),
        "model": model,
        "data": {},  # its form changed: `data=` says what to test on
        "class_names": content["class_names"],
        "state_dict": weights,
    }


def completed(content: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint, or a run's config, with the options of today, as they were when it was written.

    Args:
        content: with `model` and `data`, if it has them; it is left as it is.
    """
    result = {"thresholds": {}, **content} if "state_dict" in content else dict(content)
    search, data = content.get("model", {}).get("search"), content.get("data", {})
    if search and not {"engine", "anchors"} & set(search):  # selective search was OpenCV's only
        result["model"] = {**content["model"], "search": {**search, **OPENCV}}
    features = content.get("model", {}).get("features", {})
    if "scales_px" in features and "antialias" not in features:
        result["model"] = {**result["model"], "features": {**features, "antialias": False}}
    if "suppression" in content.get("model", {}):
        others = {key: value for key, value in result["model"].items() if key != "suppression"}
        result["model"] = {**others, "combine": content["model"]["suppression"]}
    trainer = content.get("trainer")
    if isinstance(trainer, dict) and "accumulate_grad_batches" not in trainer:
        result["trainer"] = {**trainer, "accumulate_grad_batches": 1}
    if "processes" in data:
        others = {key: value for key, value in data.items() if key != "processes"}
        result["data"] = {**others, "threads": data["processes"]}
    return result


def renamed(tree: Any) -> Any:
    """A config whose targets have their names of today."""
    if isinstance(tree, dict):
        moved = {key: renamed(value) for key, value in tree.items()}
        if "_target_" in moved:
            moved["_target_"] = RENAMED.get(moved["_target_"], moved["_target_"])
        return moved
    return [renamed(value) for value in tree] if isinstance(tree, list) else tree


def new_key(key: str, of_regions: bool) -> str:
    """A weight's name of today.

    >>> new_key("fc6.weight", True), new_key("svm.bias", True), new_key("svm.bias", False)
    ('head.fc6.weight', 'head.outputs.svm.bias', 'svm.bias')
    >>> new_key("learnt", True), new_key("features.backbone.mean", True)
    ('is_fitted', 'features.backbone.mean')
    """
    layer = key.partition(".")[0]
    if layer in HEAD:
        return f"head.{key}"
    if layer in OUTPUTS and (of_regions or layer == "classifier"):
        return f"head.outputs.{key}"
    return "is_fitted" if layer == "learnt" else key
