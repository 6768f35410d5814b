"""Exported models, run by other programs: they say what the model says."""

import json

import numpy as np
import pytest
import torch
from fake_models import CLASSIFIER, DETECTOR, WARPED

from detection.backbones.weights import read_state
from detection.config.build import build_model
from detection.disk.checkpoints import save_model
from detection.errors import UserError
from detection.runs.export import ExportOptions, export, read_options

CLASSES = ["ant", "bee", "cat"]


def made(folder, tree, moves=True):
    torch.manual_seed(0)
    model = build_model(tree, 3).eval()
    if hasattr(model, "is_fitted"):
        model.is_fitted[1] = moves
    save_model(folder / "model.ckpt", model, tree, {"name": "mine"}, CLASSES, {"ant": 0.5})
    return model


def onnx_outputs(path, **inputs):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path)
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def test_weights_are_safetensors_with_what_builds_the_model(tmp_path):
    from safetensors import safe_open

    model = made(tmp_path, CLASSIFIER)
    out = tmp_path / "weights.safetensors"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out)))
    with safe_open(out, "pt") as file:
        about = file.metadata()
        assert json.loads(about["class_names"]) == CLASSES
        assert json.loads(about["model"])["_target_"] == CLASSIFIER["_target_"]
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    again = build_model(json.loads(about["model"]), 3)
    again.load_state_dict(state)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert set(read_state(out)) == set(state)  # backbone.weights=FILE.safetensors


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_classifier_is_whole(tmp_path, suffix):
    model, out = made(tmp_path, CLASSIFIER), tmp_path / f"net{suffix}"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out)))
    images = torch.rand(5, 3, 64, 64)  # another number than it was traced with
    with torch.no_grad():
        expected = model(images).softmax(dim=1)
    if suffix == ".onnx":
        (found,) = onnx_outputs(out, images=images)
    else:
        found = torch.export.load(out).module()(images).detach().numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("moves", [True, False])
def test_a_head_scores_and_moves_regions(tmp_path, suffix, moves):
    model, out = made(tmp_path, DETECTOR, moves), tmp_path / f"head{suffix}"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out)))
    pooled = torch.rand(7, model.regions.out_features)
    with torch.no_grad():
        expected = [model.score(pooled), model.deltas(pooled)][: 1 + moves]
    if suffix == ".onnx":
        found = onnx_outputs(out, pooled=pooled)
    else:
        found = [f.detach().numpy() for f in torch.export.load(out).module()(pooled)]
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def test_a_head_of_svms_gives_margins(tmp_path):
    """The papers' way of scoring."""
    model = made(tmp_path, DETECTOR | {"scoring": "svm"})
    model.is_fitted[:] = True
    torch.nn.init.normal_(model.head.output("svm").weight)
    save_model(tmp_path / "model.ckpt", model, DETECTOR | {"scoring": "svm"}, {}, CLASSES)
    out = tmp_path / "head.onnx"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out)))
    pooled = torch.rand(4, model.regions.out_features)
    scores, _ = onnx_outputs(out, pooled=pooled)
    with torch.no_grad():
        np.testing.assert_allclose(scores, model.score(pooled), atol=1e-4)
    assert scores.min() < 0


def test_maps_of_any_size(tmp_path):
    model, out = made(tmp_path, DETECTOR), tmp_path / "maps.onnx"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out), part="maps"))
    images = torch.rand(1, 3, 90, 130)
    backbone = model.regions.backbone
    with torch.no_grad():
        expected = backbone.maps(backbone.normalize(images))
    (found,) = onnx_outputs(out, images=images)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_rcnn_is_whole_from_its_warped_regions(tmp_path):
    model, out = made(tmp_path, WARPED), tmp_path / "rcnn.onnx"
    export(ExportOptions(ckpt=str(tmp_path), out=str(out), svd_rank=[8, 8]))
    crops = torch.rand(3, 3, 64, 64)
    backbone = model.regions.backbone
    model.head.factor([8, 8])
    with torch.no_grad():
        pooled = backbone.pool5(backbone.maps(backbone.normalize(crops))).flatten(1)
        expected = model.score(pooled)
    scores, _ = onnx_outputs(out, crops=crops)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_mistakes_are_told(tmp_path):
    made(tmp_path, CLASSIFIER)
    with pytest.raises(UserError, match="must end in"):
        read_options([f"ckpt={tmp_path}", "out=net.h5"])
    (tmp_path / "there.onnx").touch()
    with pytest.raises(UserError, match="exists already"):
        read_options([f"ckpt={tmp_path}", f"out={tmp_path}/there.onnx"])
    with pytest.raises(UserError, match="no such network; it has head"):
        export(ExportOptions(ckpt=str(tmp_path), out=str(tmp_path / "a.pt2"), part="maps"))
    assert not (tmp_path / "a.pt2").exists()
