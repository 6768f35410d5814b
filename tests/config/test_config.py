"""Every config composes; mistakes are refused with the nearest right name, and quickly."""

import inspect
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import fields
from functools import partial

import pytest
import torch
from conftest import CHOICES, CONF, EXPERIMENTS, ROOT, composed
from hydra.utils import get_object
from omegaconf import OmegaConf

from detection.config.build import build, build_model
from detection.config.check import compare, tasks_of_data
from detection.config.parts import build_part
from detection.config.plain import plain, without_model
from detection.config.ranges import check_ranges
from detection.errors import UserError
from detection.runs.resume import check_same_config
from detection.runs.train import build_data, model_tree
from detection.training.model import Model


def words_for(choice):
    """What must stand beside a choice: a model of the data's task, or data of the model's."""
    group, _, name = choice.partition("=")
    if group == "data":
        models = {"classification": "sppnet_classifier", "localization": "overfeat_localizer"}
        task = tasks_of_data()[name]
        return [f"model={models[task]}"] if task in models else []
    if group != "model":
        return []
    (task,) = composed(choice).model.tasks
    data = {"detection": "shapes", "classification": "shapes_cls", "localization": "shapes_loc"}
    return [f"data={data[task]}"]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_instantiates(choice, tmp_path):
    words = [*words_for(choice), choice, "backbone.weights=null", "data.root=x",
             f"paths.data={tmp_path}"]  # fmt: skip
    if choice.startswith("backbone=overfeat") or choice.startswith("views=dense"):
        words = [w for w in words if not w.startswith("model=")] + ["model=overfeat"]
        words += ["data=shapes_cls"] if "data=shapes_cls" not in words else []
    config = plain(composed(*words))
    data, evaluator = build_data(config["data"])
    assert data.task in config["model"]["tasks"]
    evaluator.metric(3)
    with torch.device("meta"):  # as from a checkpoint, which may name model rooms only
        model = build_part(model_tree(config), num_classes=3)
    assert isinstance(model, Model)
    assert model.tasks == tuple(config["model"]["tasks"])
    for stage in filter(None, config["model"]["stages"].values()):  # null leaves one out
        assert callable(build(stage).stage)
    trainer = {**config["trainer"], "accelerator": "cpu", "precision": "32-true"}
    build({**trainer, "logger": False, "enable_progress_bar": False})
    for callback in config["callbacks"].values():
        build(callback)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds_its_model(name):
    cfg = composed(f"experiment={name}", "backbone.weights=null")
    if "width" in cfg.backbone:
        cfg.backbone.width = 0.05
    assert len(cfg.published) > 0 or "appendix_a" in name  # which prints none
    shares = [v for k, v in cfg.published.items() if k.startswith("test/")]
    assert all(0 < figure < 1 for figure in shares)
    assert all(figure > 0 for figure in cfg.published.values())
    with torch.device("meta"):
        model = build_model(model_tree(plain(cfg)), 20)
    if "scoring" in cfg.model:
        svms = model.head.output("svm")
        assert svms.in_features == model.head.width(cfg.model.layer)


OPTIONS = {  # of each stage's dataclass, the model whose config must say the same
    "overfeat_localizer": ("regress",),
    "overfeat_detector": ("detect",),
    "rpn": ("rpn",),
    "rpn_rcnn": ("rcnn",),
    "object_scoring": ("finetune", "regress", "class_wise"),
    "sppnet": ("pretrain", "finetune", "svm", "box_regression"),
    "rcnn": ("finetune",),
    "sppnet_classifier": ("train",),
    "feature_svm": ("svm",),
}
BOTH_SAY = ("augmentation", "examples", "cache")  # made of albumentations; a config places a cache


@pytest.mark.parametrize(
    ("model", "stage"), [(model, stage) for model, some in OPTIONS.items() for stage in some]
)
def test_options_are_the_papers_in_code_as_in_configs(model, stage):
    """A test that states only what it varies thus states the rest as the papers do."""
    data = {
        "overfeat_localizer": "ilsvrc_loc", "rpn": "ilsvrc_loc", "rpn_rcnn": "ilsvrc_loc",
        "object_scoring": "ilsvrc_loc",
        "sppnet_classifier": "ilsvrc_cls", "feature_svm": "ilsvrc_cls",
    }.get(model, "voc07")  # fmt: skip
    config = plain(composed(f"model={model}", f"data={data}"))["model"]["stages"][stage]
    ours = build(config)
    theirs = type(ours)()
    for field in fields(ours):
        if field.name not in BOTH_SAY:
            assert said(getattr(ours, field.name)) == said(getattr(theirs, field.name)), field.name


def test_an_rpns_training_is_the_papers_in_code_as_in_its_config():
    words = ("model=sppnet", "data=voc07", "proposals=rpn")
    ours = build(plain(composed(*words))["proposals"]["training"])
    for field in fields(ours):
        assert said(getattr(ours, field.name)) == said(getattr(type(ours)(), field.name)), field


@pytest.mark.parametrize("data", [c for c in CHOICES if c.startswith("data=")])
def test_a_test_may_be_on_any_data(data):
    """Some choose a model to train: it is not what is tested, and no part of the config then."""
    cfg = composed("ckpt=x", data, "data.root=x", name="evaluate")
    assert "model" not in plain(without_model(cfg))


def test_a_test_takes_the_model_of_its_checkpoint(tmp_path):
    """A person may not choose another."""
    words = ("ckpt=nowhere", "data=image_folder", f"data.root={tmp_path}", f"run_dir={tmp_path}/r")
    done = run(*words, "model.side_px=9", script="evaluate.py")
    assert "model.side_px=9 means nothing here: ckpt= brings the model" in done.stderr


def said(value):
    """A value that can be compared."""
    if isinstance(value, partial):
        return (value.func, value.keywords)
    if isinstance(value, tuple | list):
        return [said(one) for one in value]
    return value


@pytest.mark.parametrize("model", ["sppnet", "rcnn", "sppnet_classifier", "feature_svm"])
def test_defaults_of_models_are_the_papers_too(model):
    data = "voc07" if model in ("sppnet", "rcnn") else "ilsvrc_cls"
    config = plain(composed(f"model={model}", f"data={data}"))["model"]
    for tree in (config, config["features"]):
        signature = inspect.signature(get_object(tree["_target_"])).parameters
        for name, value in tree.items():
            default = signature[name].default if name in signature else inspect.Parameter.empty
            if name in ("side_px", "views", "published_boxes"):
                continue
            if default is not inspect.Parameter.empty and not isinstance(value, dict):
                assert said(default) == value, name


def run(*words, script="train.py"):
    command = [sys.executable, script, *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=spnet"], "there is no model=spnet (did you mean sppnet?)"),
        (["trainr=cpu"], "(did you mean trainer?)"),
        (["model.laier=fc6"], "(did you mean model.layer?)"),
        (["model.scoring=svm", "model.stages.svm=null"], "choose model.scoring=softmax"),
        (["model.stages.finetune=null"], "model.scoring=softmax needs model.stages.finetune"),
        (["recipe=short"], "there is no option 'recipe' any more: it is now schedule"),
        (["recipe.width=1"], "any more: values stand where they are used"),
        (["model.detector.scoring=svm"], "any more: it is now model.scoring"),
        (["members=2"], "any more: it is now num_models"),
        (["model=rcnn", "data=shapes_cls"], "which is for classification: choose one of data="),
        (["model=rcnn", "schedule=quick"], "schedule=quick: choose one of schedule=paper, short"),
        (["model=classifier", "data=shapes_cls", "schedule=short"], "has no schedule=short"),
        (["+model.nms=1"], "there is no option 'model.nms'"),
        (["model.features.shrink_px=wide"], "'wide' is a word, but a number is expected"),
        (["model.features.scales_px=688"], "688 is a whole number, but a list is expected"),
        (["data=voc", "data.root=/nowhere"], "data.root=/nowhere: there is no such folder"),
    ],
)
def test_a_mistake_ends_with_2_and_one_clear_error(words, message, tmp_path):
    result = run(*words, f"run_dir={tmp_path}/run", "backbone.weights=null")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_weights_may_be_a_list_of_each_models_and_others_not():
    given, default = ({"backbone": {"weights": w, "name": "x"}} for w in (["a", "b"], "imagenet"))
    compare(OmegaConf.create(given), OmegaConf.create(default), "")
    given["backbone"]["name"] = ["x", "y"]
    with pytest.raises(UserError, match=r"backbone\.name=.* is a list, but a word is expected"):
        compare(OmegaConf.create(given), OmegaConf.create(default), "")


def test_trace_shows_the_traceback(tmp_path):
    assert "Traceback" in run("data=voc", "debug=trace", f"run_dir={tmp_path}").stderr


def test_help_fits_a_screen_and_lists_the_groups():
    text = run("--help").stdout
    assert len(text.splitlines()) <= 45
    for group in ("model", "data", "backbone", "trainer", "logger", "experiment", "sweep"):
        assert f"{group}" in text


@pytest.mark.parametrize(
    "words", [["--help"], ["--cfg", "job"], ["model.laier=fc6"], ["model.layer=fc8"]]
)
def test_quick_answers_import_nothing_slow(words, tmp_path):
    code = (
        "import sys, runpy; sys.argv = ['train.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('train.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "slow = {'torch', 'pytorch_lightning', 'cv2', 'wandb'} & set(sys.modules)\n"
        "print('SLOW', slow, file=sys.stderr) if slow else None"
    )
    command = [sys.executable, "-c", code, *words, f"run_dir={tmp_path}"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert "SLOW" not in result.stderr


def test_build_refuses_foreign_targets():
    with pytest.raises(UserError, match=r"_target_=os\.system is not allowed"):
        build(
            {
                "_target_": "detection.data.sources.existing_folder",
                "root": {"_target_": "os.system"},
            }
        )


def test_build_tells_of_unknown_arguments():
    with pytest.raises(UserError, match="unexpected keyword argument 'colour'"):
        build({"_target_": "detection.combine.nms.NMS", "colour": 1})


def test_null_switches_a_stage_off_but_not_a_number():
    default = OmegaConf.create({"stage": {"x": 1}, "rate": 0.1})
    compare(OmegaConf.create({"stage": None, "rate": 1}), default, "")
    with pytest.raises(UserError, match="rate=None is null, but a number is expected"):
        compare(OmegaConf.create({"stage": None, "rate": None}), default, "")


def test_run_dir_of_another_config_is_refused(tmp_path):
    trainer = {"devices": 1, "accumulate_grad_batches": 1}
    old = {"seed": 1, "model": {"layer": "fc6"}, "trainer": trainer}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(old)))
    check_same_config(tmp_path, {**old, "model": {"layer": "fc7"}})  # it failed before any stage
    (tmp_path / "stages" / "1_pretrain").mkdir(parents=True)
    check_same_config(tmp_path, {**old, "trainer": {**trainer, "devices": 2}})
    with pytest.raises(UserError, match=r"model\.layer: 'fc6' there, 'fc7' now"):
        check_same_config(tmp_path, {**old, "model": {"layer": "fc7"}})
    check_same_config(tmp_path, {**old, "views": "ten"})  # the test is made anew
    older = {**old, "data": {"processes": 2}}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(older)))
    check_same_config(tmp_path, {**old, "data": {"threads": 8}})
    precise = {**old, "trainer": {**trainer, "precision": "bf16-mixed"}}
    with pytest.raises(UserError, match=r"trainer\.precision: None there, 'bf16-mixed' now"):
        check_same_config(tmp_path, precise)
    clipped = {**old, "trainer": {**trainer, "gradient_clip_val": 1}}
    with pytest.raises(UserError, match=r"trainer\.gradient_clip_val"):
        check_same_config(tmp_path, clipped)
    with pytest.raises(UserError, match="views: None there, 'ten' now"):  # that of a split is not
        check_same_config(tmp_path, {**old, "views": "ten"}, ("seed", "views"))


def test_options_of_stages_to_come_may_change(tmp_path):
    """A stage that diverged begins anew with another rate once its folder is deleted."""
    rate = {"model": {"stages": {name: {"optimizer": {"lr": 1.0}} for name in ("one", "two")}}}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(rate)))
    (tmp_path / "stages" / "1_one").mkdir(parents=True)
    for name, refused in (("two", False), ("one", True)):
        now = OmegaConf.to_container(OmegaConf.create(rate))
        now["model"]["stages"][name]["optimizer"]["lr"] = 0.1
        with pytest.raises(UserError, match=r"one\.optimizer\.lr") if refused else nullcontext():
            check_same_config(tmp_path, now)


@pytest.mark.parametrize("content", ["", "\0\0\0", "[1, 2]", "a: [", "\xff\xfe"])
def test_a_damaged_config_is_no_other_config(content, tmp_path):
    (tmp_path / "stages" / "1_one").mkdir(parents=True)
    (tmp_path / "config.yaml").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"config\.yaml is damaged: delete it"):
        check_same_config(tmp_path, {"seed": 1, "model": {}})


@pytest.mark.parametrize("word", [
    "model.stages.box_regression.ridge=0", "model.stages.svm.options.c=-1", "combine.max_iou=1.5",
    "model.stages.finetune.optimizer.lr=-0.1", "model.stages.finetune.batch_size=0",
])  # fmt: skip
def test_numbers_outside_their_range_are_refused(word):
    config = plain(composed("model=rcnn", "data=voc07", word))
    with pytest.raises(UserError, match=rf"{word.partition('=')[0]}=.*: it must"):
        check_ranges(config)


def parts_of_config(path):
    return OmegaConf.to_container(OmegaConf.load(path))


def test_every_choice_lies_in_its_range():
    for choice in CHOICES:
        check_ranges(parts_of_config(CONF / f"{choice.replace('=', '/')}.yaml"))


def test_config_files_stay_short():
    for path in CONF.rglob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 40, path
