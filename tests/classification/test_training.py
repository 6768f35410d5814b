"""The training of classifiers: sizes, parts of epochs, what is refused."""

from types import SimpleNamespace

import pytest
import torch
from small_spp import spp

from detection.classification.training import ClassificationOptions
from detection.data.examples import WholeImages
from detection.errors import UserError
from detection.evaluation.classification import ClassificationEvaluator


class Split:
    """Thirty images."""

    multi_label = False

    def __len__(self):
        return 30


class Crops:
    """Ten of each image, which are never made."""

    views = 10

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)


class Examples(WholeImages):
    """Those."""

    def of(self, split, side_px, input_px):
        return Crops(split)


def training(**changes):
    split = Split()
    split.multi_label = changes.pop("multi_label", False)
    data = SimpleNamespace(name="some", split=lambda name: split)
    net = changes.pop("net", None) or spp()
    options = {
        "examples": Examples(None),
        "sizes_px": [64, 48],
        "batch_size": 4,
        "epochs": 4,
        "crops_per_checkpoint": 100,
        "dropout": 0.0,
    }
    made = ClassificationOptions(**{**options, **changes})
    return made.stage(net, data, ClassificationEvaluator())


@pytest.mark.parametrize(
    ("alternate", "sizes"), [("epoch", [64, 64, 48, 48, 64]), ("step", [64, 48, 64, 48, 64])]
)
def test_sizes_alternate_by_epoch_or_step(alternate, sizes):
    """SPP-net, 2.3; a function of the step's number, so that all processes agree."""
    stage = training(alternate=alternate, crops_per_checkpoint=1000)
    found = []
    for step in range(5):
        stage._trainer = SimpleNamespace(current_epoch=step // 2, global_step=step)
        found.append(stage.size_now())
    assert found == sizes


def test_long_epochs_have_parts():
    """Whole epochs alternate the size; three parts of 100 crops each make one."""
    stage = training()
    assert stage.trainer_options()["max_epochs"] == 4 * 3
    found = []
    for number in range(7):
        stage._trainer = SimpleNamespace(current_epoch=number, global_step=0)
        found.append(stage.size_now())
    assert found == [64, 64, 64, 48, 48, 48, 64]


def test_the_smaller_size_is_the_resized_crop(monkeypatch):
    """SPP-net, 2.3: the same content at 48 as at 64, not a smaller crop."""
    stage = training(sizes_px=[48])
    stage._trainer = SimpleNamespace(current_epoch=0, global_step=0)
    monkeypatch.setattr(stage, "log", lambda *_, **__: None)
    seen = []
    stage.model.forward = lambda images, dropout: seen.append(images) or torch.zeros(2, 6)
    crops = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    crops[:, :, :32] = 255
    stage.training_step((crops, torch.tensor([0, 1])), 0)
    assert seen[0].shape == (2, 3, 48, 48)
    assert seen[0][:, :, :23].min() > 0.99
    assert seen[0][:, :, 25:].max() < 0.01


def test_bad_sizes_and_data_are_refused():
    with pytest.raises(UserError, match="sizes_px needs positive numbers"):
        training(sizes_px=[])
    with pytest.raises(UserError, match=r"sizes_px=12 is too small .* it needs \d+ pixels"):
        training(sizes_px=[64, 12])
    with pytest.raises(UserError, match=r"sizes_px=32 is too small for 3×3 bins"):
        training(net=spp(levels=(3, 1)), sizes_px=[64, 32])
    with pytest.raises(UserError, match="several classes in an image: model=feature_svm"):
        training(multi_label=True)
