"""Checkpoints from somebody else are data: nothing in them runs, and faults are told in a line."""

import importlib
import os
import pickle
import zipfile

import pytest
import torch
from conftest import CONF, composed
from fake_models import CLASSIFIER as TREE

from detection.config.build import targets
from detection.config.known_data import merged
from detection.config.parts import PARTS, build_part
from detection.config.plain import plain
from detection.disk.checkpoints import read_checkpoint, restore_model, save_model
from detection.disk.torch_files import check_weights, load_plain
from detection.errors import UserError
from detection.runs.train import model_tree

DATA = {"shapes": "detection", "shapes_cls": "classification", "shapes_loc": "localization"}


@pytest.fixture
def honest(tmp_path):
    """The content of a checkpoint of ours, and where to write another."""
    model = build_part(TREE, num_classes=2)
    save_model(tmp_path / "model.ckpt", model, TREE, {"name": "shapes_cls"}, ["a", "b"])
    return read_checkpoint(tmp_path), tmp_path / "model.ckpt"


def refused(content, path, **changes):
    """What is said of a checkpoint with these changes."""
    torch.save({**content, **changes}, path)
    with pytest.raises(UserError) as caught:
        restore_model(read_checkpoint(path))
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("target", [
    "os.system",
    "detection.proposals.pool.multiprocessing.util.spawnv_passfds",
    "detection.disk.checkpoints.torch.load",
    "detection.disk.files.write_text",
    "detection.disk.files.os.mkdir",
    "detection.runs.train.train",
    "detection.regions.detector.open_store",
    "torchvision.datasets.utils.download_url",
    "pytorch_lightning.Trainer",
    "albumentations.core.serialization.load",
    "detection.regions.feature_cache.FeatureCache",
    "detection.combine.nms.NMS.__init__",
    ["detection.combine.nms.NMS"],
])  # fmt: skip
def test_what_is_no_part_of_a_model_is_not_built(target, honest):
    """At the root, inside it, and where it would be called later."""
    content, path = honest
    inner = {"_target_": target}
    for tree in (inner, {**TREE, "views": inner}, {**TREE, "views": {**inner, "_partial_": True}}):
        assert "refused" in refused(content, path, model=tree)


@pytest.mark.parametrize("words", [{"_args_": [1]}, {"_recursive_": False}, {"_convert_": "all"}])
def test_words_that_steer_hydra_are_refused(words, honest):
    content, path = honest
    assert "it is no model" in refused(content, path, model={**TREE, **words})


def test_nothing_in_it_is_resolved(monkeypatch):
    monkeypatch.setenv("SECRET", "the word")
    said = build_part({"a": "${oc.env:SECRET}", "b": [{"c": "${a}"}]})
    assert said == {"a": "${oc.env:SECRET}", "b": [{"c": "${a}"}]}


@pytest.mark.parametrize(("changes", "message"), [
    ({"class_names": "ab"}, "class_names is a str"),
    ({"class_names": []}, "class_names must be names"),
    ({"class_names": [1, 2]}, "class_names must be names"),
    ({"model": None}, "model is a NoneType"),
    ({"model": {}}, "model says nothing to build"),
    ({"data": "voc"}, "data is a str"),
    ({"state_dict": {"a": 1}}, "there is no state dict"),
    ({"thresholds": {"a": "high"}}, "thresholds must be numbers"),
])  # fmt: skip
def test_other_types_in_their_place(changes, message, honest):
    assert message in refused(*honest, **changes)


@pytest.mark.parametrize("key", ["class_names", "model", "state_dict", "data"])
def test_what_is_missing_is_named(key, honest):
    content, path = honest
    content = {k: v for k, v in content.items() if k != key}
    assert f"{key} is missing" in refused(content, path)


def test_a_program_in_it_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'was_here'}",)

    torch.save({"format": 2, "model": Evil()}, tmp_path / "a.ckpt")
    (tmp_path / "b.ckpt").write_bytes(pickle.dumps(Evil()))
    for name in ("a.ckpt", "b.ckpt"):
        with pytest.raises(UserError, match="what could be a program is not run"):
            load_plain(tmp_path / name, "it")
    assert not (tmp_path / "was_here").exists()


def test_what_inflates_is_refused_from_its_table_of_contents(honest):
    content, path = honest
    content = {**content, "state_dict": {"a": torch.zeros(2**20)}}
    torch.save(content, path)
    packed = path.with_name("packed.ckpt")
    with zipfile.ZipFile(path) as source, \
         zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:  # fmt: skip
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert packed.stat().st_size < path.stat().st_size / 100
    with pytest.raises(UserError, match="its parts are packed"):
        read_checkpoint(packed)


def test_a_tensor_larger_than_its_storage(honest):
    content, path = honest
    state = {**content["state_dict"]}
    name = next(iter(state))
    state[name] = torch.zeros(1).expand(state[name].shape)
    assert f"{name} is larger than what the file holds" in refused(content, path, state_dict=state)


def test_a_config_that_asks_for_all_memory(honest):
    """A few bytes of config, layers of terabytes: their sizes are compared before they are made."""
    content, path = honest
    features = {**TREE["features"], "levels": [3000, 1]}
    assert "do not fit this model" in refused(content, path, model={**TREE, "features": features})


def test_weights_that_are_no_numbers(honest):
    content, path = honest
    name = next(k for k, v in content["state_dict"].items() if v.is_floating_point())
    state = {k: v.clone() for k, v in content["state_dict"].items()}
    state[name].view(-1)[0] = float("nan")
    assert f"{name} holds what is no number" in refused(content, path, state_dict=state)


@pytest.mark.parametrize("kind", [
    lambda x: x.to_sparse(), lambda x: x.to(torch.complex64), lambda x: x.to(torch.float8_e5m2),
    lambda x: x.to("meta"), lambda x: torch.quantize_per_tensor(x, 1.0, 0, torch.quint8),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")  # quantised tensors are on their way out
def test_tensors_of_other_kinds(kind, honest):
    content, _ = honest
    name = next(k for k, v in content["state_dict"].items() if v.is_floating_point())
    state = {**content["state_dict"], name: kind(content["state_dict"][name])}
    with pytest.raises(UserError, match="is a tensor of a kind that no model here has"):
        check_weights(state, "it")
    with pytest.raises(UserError, match="no state dict"):
        check_weights({1: torch.zeros(1)}, "it")


def test_bytes_that_name_their_own_size(tmp_path):
    torch.save({"format": 2, "model": bytearray(10)}, tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="memory of a size that it names itself"):
        load_plain(tmp_path / "a.ckpt", "it")


def test_values_that_a_part_cannot_have(honest):
    content, path = honest
    backbone = {**TREE["features"]["backbone"], "width": float("nan")}
    tree = {**TREE, "features": {**TREE["features"], "backbone": backbone}}
    assert "the checkpoint's config of" in refused(content, path, model=tree)


@pytest.mark.parametrize("value", [
    {"source": {"_target_": "os.system", "_partial_": True}},
    {"source": {"seed": {"_target_": "os.system"}}},
    {"annotations": {"_target_": "detection.disk.files.write_text"}},
    {"root": "${oc.env:SECRET}"},
    {"val_images": "many"},
    {"_target_": "detection.data.detection.DetectionAnnotations"},
])  # fmt: skip
def test_data_of_a_checkpoint_are_options_of_our_own_configs(value):
    ours = plain(composed("data=shapes"))["data"]
    with pytest.raises(UserError, match="the checkpoint's data"):
        merged(ours, value, "data")
    kept = merged(ours, {"limit": 7, "source": {"seed": 3, "train": 9}, "unknown": 1}, "data")
    assert (kept["limit"], kept["source"]["seed"], kept["source"]["train"]) == (7, 3, 9)
    assert "unknown" not in kept


def test_folders_that_are_written_in_are_ours(tmp_path):
    ours = plain(composed("data=shapes"))["data"]
    assert merged(ours, {"cache": str(tmp_path)}, "data")["cache"] == ours["cache"]


def test_the_list_of_parts_is_complete_and_holds_no_more():
    """Every part that a model of ours is made of; each stands where its name says."""
    models = [p.stem for p in (CONF / "model").glob("[!_]*.yaml")]
    used = set()
    for model in models:
        task = composed(f"model={model}", "data=shapes").model.tasks[0]
        (data,) = (name for name, of in DATA.items() if of == task)
        cfg = composed(f"model={model}", f"data={data}", "schedule=paper")
        used |= set(targets(model_tree(plain(cfg))))
    cfg = composed("model=sppnet", "data=shapes", "proposals=rpn")
    used |= set(targets(model_tree(plain(cfg))))
    groups = ("backbone", "views", "combine", "scales")
    for path in (p for group in groups for p in (CONF / group).glob("*.yaml")):
        words = path.read_text().replace("{", " ").replace(",", " ").split()
        used |= {words[n + 1] for n, word in enumerate(words) if word == "_target_:"}
    older = {"detection.classification.classifier.AverageFeatures"}  # of checkpoints of before
    assert used | older == PARTS
    for name in PARTS:
        module, _, own = name.rpartition(".")
        part = getattr(importlib.import_module(module), own)
        assert (part.__module__, part.__qualname__) == (module, own)
