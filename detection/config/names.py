"""The nearest right name to a wrong one."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """A hint at the nearest of `options`, or nothing.

    >>> did_you_mean("spnet", ["sppnet", "rcnn"])
    ' (did you mean sppnet?)'
    >>> did_you_mean("zzz", ["sppnet"])
    ''
    """
    options = list(options)
    last = name.rpartition(".")[2]  # it may be right, and its place wrong
    near = [o for o in options if o.lower() == name.lower() or o.rpartition(".")[2] == last]
    near += difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    return f" (did you mean {near[0]}?)" if near else ""


RENAMED = {
    "recipe": "schedule",
    "members": "num_models",
    "model.detector": "model",
    "model.search": "proposals.search",
    "model.stages.propose": "proposals.training",
    "model.views": "views",
    "model.crop": "model.stages.train.examples.crop",
    "model.flip": "model.stages.train.examples.transforms",
    "model.colour": "model.stages.train.examples.transforms",
    "model.crops_per_image": "model.stages.train.examples.crops_per_image",
    "model.mirror_too": "model.stages.train.examples.mirror_too",
    "model.stages.train.squares_per_part": "model.stages.train.crops_per_checkpoint",
    "model.stages.finetune.learning_rate": "model.stages.finetune.optimizer.lr",
    "model.stages.finetune.rates.base": "model.stages.finetune.optimizer.lr",
    "model.stages.finetune.rates": "model.stages.finetune",
    "model.stages.finetune.drop_at": "model.stages.finetune.schedule.at",
    "model.stages.finetune.momentum": "model.stages.finetune.optimizer.momentum",
    "model.stages.finetune.weight_decay": "model.stages.finetune.optimizer.weight_decay",
    "model.stages.finetune.rule": "model.stages.finetune.matcher",
    "model.stages.box_regression.min_iou": (
        "model.stages.box_regression.matcher.foreground_min_iou"
    ),
    "data.processes": "data.threads",
    "model.suppression": "combine",
    "data.side_px": "model.side_px",
    "data.crops_per_image": "model.stages.train.examples.crops_per_image",
    "data.mirror_too": "model.stages.train.examples.mirror_too",
    "data.augmentation": "model.stages.train.examples.transforms",
    "data.classes": "data.annotations.classes",
    "data.bad_boxes": "data.annotations.bad_boxes",
    "data.train_on_difficult": "data.annotations.train_on_difficult",
    "data.interpolation": "data.evaluator.interpolation",
    "data.metric": "data.evaluator.metric",
    "data.mat_boxes": "model.published_boxes",
}
"""Options of version 0.1 and where they stand now."""


def renamed(key: str) -> str | None:
    """The name of today of an option of an older version; None where it had none.

    >>> renamed("model.detector.scoring"), renamed("recipe"), renamed("recipe.width"), renamed("x")
    ('model.scoring', 'schedule', None, None)
    """
    for old, new in sorted(RENAMED.items(), key=lambda pair: -len(pair[0])):
        if key == old:
            return new
        if key.startswith(f"{old}.") and old != "recipe":
            return new + key.removeprefix(old)
    return None
