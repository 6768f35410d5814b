"""Tests the model of a checkpoint, or an ensemble of several, on its own or on other data."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import nn

from detection.backbones.head import Head
from detection.config.known_data import known_data
from detection.config.plain import plain, without_model
from detection.disk.checkpoints import Checkpoint, read_checkpoint, restore_model
from detection.errors import UserError
from detection.runs.measure import Measured, measure
from detection.runs.report import write_result
from detection.runs.resume import keep_config
from detection.runs.train import begun, build_data
from detection.runs.trainer import check_trainer, make_loggers
from detection.runtime.distributed import is_first_process
from detection.training.ensemble import as_one
from detection.training.model import Model

log = logging.getLogger(__name__)

Config = dict[str, Any]


def evaluate(cfg: DictConfig) -> float:
    """Test, and report; the headline figure.

    Raises:
        UserError: checkpoints of different classes, or a mistake in the config or the data.
    """
    config = plain(without_model(cfg))
    if not any(word.startswith("combine") for word in HydraConfig.get().overrides.task):
        config["combine"] = None  # some data choose one for models that learn from them
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    with begun(config, run_dir):
        check_trainer(config["trainer"], config["callbacks"])
        return evaluate_in(config, run_dir)


def evaluate_in(config: Config, run_dir: Path) -> float:
    """The same, with a folder of its own."""
    names = config["ckpt"] if isinstance(config["ckpt"], list) else [config["ckpt"]]
    contents = read_all(names)
    if config.get("data"):
        contents = [without_published_boxes(c, config["data"]["name"]) for c in contents]
    config["data"] = data_config(config, contents[0])
    changes = Changes(**{field.name: config.get(field.name) for field in fields(Changes)})
    model = restore_all(contents, config["precision"], config.get("svd_rank"), changes)
    task = config["data"]["task"]
    if task not in model.tasks:
        raise UserError(
            f"data={config['data']['name']} is for {task}, but {names[0]} is a model for "
            f"{' or '.join(model.tasks)}"
        )
    data, evaluator = build_data(config["data"])
    data.setup("test")
    if data.class_names != contents[0]["class_names"]:
        raise UserError(
            f"the classes of data={data.name} are not those that {names[0]} was trained on"
        )
    model.prepare(data)
    keep_config(run_dir, config)
    with make_loggers(config, run_dir) as loggers:
        tested = measure(config, run_dir, model, data, evaluator, loggers, "test")
        if not is_first_process():
            return 0.0
        write_result(run_dir, model, data, tested, Measured({}), {}, config, loggers)
    return tested.figures[evaluator.headline]


def read_all(names: Sequence[str | Path]) -> list[Checkpoint]:
    """Checkpoints of models for the same classes.

    Raises:
        UserError: they are of different classes, or one cannot be read.
    """
    contents = [read_checkpoint(name) for name in names]
    if any(c["class_names"] != contents[0]["class_names"] for c in contents):
        raise UserError("ckpt= names models of different classes")
    return contents


def without_published_boxes(content: Checkpoint, data: str) -> Checkpoint:
    """A checkpoint whose model finds its proposals itself where the published are of other data."""
    if content["data"].get("name") == data or not content["model"].get("published_boxes"):
        return content
    log.info("published boxes are of %s: those of %s are searched", content["data"]["name"], data)
    return {**content, "model": {**content["model"], "published_boxes": None}}


def data_config(config: Config, first: Checkpoint) -> Config:
    """The data to test on: the user's, else those that the model was trained for.

    Where the data finds its classes in its files, the model's are taken, and objects of others are
    left out. Of another folder without lists every image is tested.

    Raises:
        UserError: the checkpoint's data are none of ours.
    """
    paths = [word for word in HydraConfig.get().overrides.task if word.startswith("paths.")]
    chosen = dict(config.get("data") or known_data(first["data"], paths))
    annotations = chosen.get("annotations") or {}
    if "classes" in annotations:
        chosen["annotations"] = {**annotations, "classes": first["class_names"]}
        if "unknown" in annotations:  # nothing that the model knows can be found there
            chosen["annotations"]["unknown"] = "leave_out"
    given = [word.lstrip("+~") for word in HydraConfig.get().overrides.task]
    root, trained = folder_of(chosen), folder_of(first["data"])
    if root != trained and not any(word.startswith("data.fractions") for word in given):
        chosen["fractions"] = {"test": 1.0}  # of a folder without lists; none of it was trained on
        if "fractions" in first["data"]:
            log.warning(
                "where %s has no lists of images, all of them are tested, for the model was "
                "trained on %s: if that was the same, moved or copied, say data.fractions={test: "
                "SHARE} as then", root, trained,
            )  # fmt: skip
    return chosen


def folder_of(data: Config) -> Path | None:
    """Where a data set lies, however it was written."""
    root = data.get("root")
    return Path(str(root)).expanduser().resolve() if root else None


@dataclass(frozen=True)
class Changes:
    """What a test may change of how models were made; None leaves it.

    Attributes:
        views: config of test-time views of classifiers, or of those that name a localiser's
            classes.
        combine: config of what makes few boxes of many.
        scales: config of whole images at some scales, for OverFeat's models.
        classes: of localisers: runs of the classifiers that name the classes.
    """

    views: Config | None = None
    combine: Config | None = None
    scales: Config | None = None
    classes: str | Sequence[str] | None = None

    def applied(self, tree: Config) -> Config:
        """A model's config with these changes.

        Raises:
            UserError: the model has no use for one of them.
        """
        if "rpn" in tree:  # who proposes for an R-CNN names classes, looks, and combines
            return {**tree, "rpn": self.applied(tree["rpn"])}
        localizes = "class_views" in tree
        named = bool(self.classes or tree.get("classes"))
        looks = "views" in tree and not has_scales(tree)
        places = {  # option: key of the model, and whether this one has it
            "views": ("class_views", named) if localizes else ("views", looks),
            "combine": ("combine", "combine" in tree),
            "scales": ("views", has_scales(tree)),
            "classes": ("classes", localizes),
        }
        for option, (key, has_it) in places.items():
            value = getattr(self, option)
            if value is not None and not has_it:
                hint = ": this one takes scales=" if option == "views" and has_scales(tree) else ""
                raise UserError(
                    f"{option}= is for models of another kind, and means nothing here{hint}"
                )
            tree = tree if value is None else {**tree, key: value}
        return tree


def has_scales(tree: Config) -> bool:
    """Whether a model looks at whole images at some scales."""
    return "sizes" in (tree.get("views") or {})


def restore_all(
    contents: list[Checkpoint],
    precision: Literal["float32", "bfloat16"] | None = None,
    svd_rank: Sequence[int] | None = None,
    changes: Changes = Changes(),
) -> Model:
    """The model of a checkpoint, or the ensemble of several.

    Args:
        contents: of the checkpoints.
        precision: of inference; None: as each model was made.
        svd_rank: of fc6 and fc7, approximated (see `Head.factor`); None: as they are.
        changes: of how the models were made.

    Raises:
        UserError: views or ranks for a model that has no use for them, or a checkpoint that
            cannot be restored.
    """
    models = []
    for content in contents:
        tree = changes.applied(content["model"])
        if precision:
            inner = {"rpn": {**tree["rpn"], "precision": precision}} if "rpn" in tree else {}
            tree = {**tree, "precision": precision, **inner}
        model = restore_model({**content, "model": tree})
        if svd_rank is not None:
            factor(model, svd_rank)
        models.append(model)
    return as_one(models)


def factor(model: nn.Module, ranks: Sequence[int]) -> None:
    """Approximate fc6 and fc7 of a model's heads; see `Head.factor`.

    Raises:
        UserError: it has no head with such layers, or the ranks are not two positive numbers.
    """
    is_pair = isinstance(ranks, Sequence) and len(ranks) == 2
    if not is_pair or not all(isinstance(rank, int) and rank > 0 for rank in ranks):
        raise UserError(f"svd_rank={ranks}: give the rank of fc6 and of fc7, such as [256,64]")
    heads = [part for part in model.modules() if isinstance(part, Head)]
    # of a localiser's two, the classifier's may have no such layers
    for head in [head for head in heads if head.fc6 is not None] or heads:
        head.factor(ranks)
