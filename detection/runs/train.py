"""A run: config → data, model, stages → figures and report; it goes on where it stopped."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning.loggers import Logger

from detection.config.build import build, build_model
from detection.config.plain import plain
from detection.disk.checkpoints import save_model
from detection.disk.locks import held
from detection.disk.run_files import NAME
from detection.errors import UserError
from detection.evaluation.evaluator import Evaluator
from detection.runs.measure import measure
from detection.runs.repeats import of_each_split, run_on_splits
from detection.runs.report import write_result
from detection.runs.resume import DECISIVE, check_same_config, keep_config, warn_without_weights
from detection.runs.stages import run_stages
from detection.runs.trainer import check_trainer, make_loggers
from detection.runtime.distributed import is_first_process
from detection.runtime.memory import keep_freed_memory
from detection.training.ensemble import as_one
from detection.training.model import Model

log = logging.getLogger(__name__)

Config = dict[str, Any]
NOT_OF_A_MODEL = ("tasks", "stages", "feature_cache")  # keys of `model` beside its own


def train(cfg: DictConfig) -> float:
    """Run every stage that is not done yet, measure, and report; the optimised figure.

    Raises:
        UserError: a mistake in the config or the data.
        TrainingError: a loss that is not finite.
    """
    config = plain(cfg)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    splits = of_each_split(config)
    with begun(config, run_dir):
        check_same_config(run_dir, config, DECISIVE)
        check_before_work(config)
        keep_config(run_dir, config)
        with make_loggers(config, run_dir) as loggers:
            if splits:
                figures = run_on_splits(config, run_dir, loggers, train_once)
            else:
                figures = train_once(config, run_dir, loggers)
    return optimized(config, figures) if is_first_process() else 0.0


@contextmanager
def begun(config: Config, run_dir: Path) -> Iterator[None]:
    """What every command does first: a folder of its own, logs of one process, memory kept.

    Raises:
        UserError: another process has the folder, or it cannot be written.
    """
    if not is_first_process():
        logging.getLogger("detection").setLevel(logging.WARNING)
    if config["trainer"].get("accelerator") != "gpu":
        keep_freed_memory()
    with held(run_dir) if is_first_process() else nullcontext():
        yield


def check_before_work(config: Config) -> None:
    """Make what the run will need of stages and trainers: mistakes are told before minutes of work.

    Raises:
        UserError: an option that a stage, the `Trainer`, a callback or a logger does not have.
    """
    for stage in filter(None, config["model"]["stages"].values()):
        build(stage)
    check_trainer(config["trainer"], config["callbacks"])


def train_once(config: Config, run_dir: Path, loggers: Sequence[Logger] = ()) -> dict[str, float]:
    """One run; its figures in the first process, nothing in others."""
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    data, evaluator = build_data(config["data"])
    data.setup()
    if not data.has_val and config["optimized_metric"] is None and is_search():
        raise UserError(
            f"data={data.name} has no validation images for the sweep to choose by: set "
            "data.val_images=NUMBER, or optimized_metric= to another figure of the run"
        )
    whole_tree = model_tree(config)
    warn_without_weights(config)
    models: dict[Path, Model] = {}
    seconds: Counter[str] = Counter()
    trees: dict[Path, Config] = {}
    for number, (folder, seed) in enumerate(model_folders(config, run_dir).items()):
        if models:
            pl.seed_everything(seed, workers=True, verbose=False)
        trees[folder] = tree = with_weights_of(number, whole_tree)
        model = build_model(tree, data.num_classes)
        if not models:  # the others of an ensemble are like it
            model.prepare(data)
        context = (model, data, evaluator)
        seconds.update(run_stages({**config, "seed": seed}, folder, context, tree, loggers))
        models[folder] = model
    whole = as_one(list(models.values()))
    validated = measure(config, run_dir, whole, data, evaluator, loggers, "val")
    tested = measure(config, run_dir, whole, data, evaluator, loggers, "test")
    if not is_first_process():
        return {}
    for folder, model in models.items():
        names, thresholds = data.class_names, validated.thresholds
        save_model(folder / NAME, model, trees[folder], config["data"], names, thresholds)
    return write_result(run_dir, whole, data, tested, validated, dict(seconds), config, loggers)


def build_data(config: Config) -> tuple[Any, Evaluator]:
    """A data module and the evaluator of its task, from the config of a data set."""
    of_module = {key: value for key, value in config.items() if key != "evaluator"}
    return build(of_module), build(config["evaluator"])


def model_tree(config: Config) -> Config:
    """The config of the model only: what a checkpoint keeps, and what builds it."""
    return {key: value for key, value in config["model"].items() if key not in NOT_OF_A_MODEL}


def model_folders(config: Config, run_dir: Path) -> dict[Path, int]:
    """Folder and seed of each model that is trained: of the run, or of `num_models` of them.

    Raises:
        UserError: none is, or there are not as many `backbone.weights`.
    """
    seed, count, weights = config["seed"], config["num_models"], config["backbone"]["weights"]
    if count < 1:
        raise UserError(f"num_models={count}: at least one model is trained")
    if isinstance(weights, list) and len(weights) != count:
        raise UserError(
            f"backbone.weights={weights}: a list names those of each model, and here are {count} "
            f"(num_models={len(weights)})"
        )
    if count == 1:
        return {run_dir: seed}
    return {run_dir / f"model_{n + 1}": seed + n for n in range(count)}


def with_weights_of(number: int, tree: Any) -> Any:
    """A model's config where `backbone.weights` is a list of each model's: with its own."""
    if isinstance(tree, list):
        return [with_weights_of(number, part) for part in tree]
    if not isinstance(tree, dict):
        return tree
    return {
        key: value[number] if key == "weights" and isinstance(value, list)
        else with_weights_of(number, value)
        for key, value in tree.items()
    }  # fmt: skip


def is_search() -> bool:
    """Whether this is a job of a sweep that chooses the next values by what a job comes to."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    return not str(HydraConfig.get().sweeper["_target_"]).endswith("BasicSweeper")


def optimized(config: Config, figures: dict[str, float]) -> float:
    """The figure that sweeps choose by: on validation data, unless another is asked for.

    Raises:
        UserError: the run has no such figure.
    """
    headline: str = build(config["data"]["evaluator"]).headline
    name = config["optimized_metric"] or f"val/{headline}"
    if name in figures:
        return figures[name]
    if config["optimized_metric"] is None:  # nothing was asked for, and there is nothing to choose
        return float("nan")
    raise UserError(
        f"optimized_metric={name}: the run has no such figure; it has "
        f"{', '.join(k for k in figures if k.startswith(('val/', 'test/')))[:300]}"
    )
