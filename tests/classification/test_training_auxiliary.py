"""GoogLeNet's classifiers on inner maps."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torchvision.models import GoogLeNet

from detection.backbones.averaged import googlenet
from detection.classification.classifier import AverageFeatures, Classifier
from detection.classification.training import ClassificationOptions, outputs_of
from detection.data.examples import WholeImages
from detection.evaluation.classification import ClassificationEvaluator


class Images:
    """Four of them."""

    multi_label = False

    def __len__(self):
        return 4


class Crops:
    """Of four images, which are never made."""

    views = 1

    def __len__(self):
        return 4


class Examples(WholeImages):
    """Those."""

    def of(self, split, side_px, input_px):
        return Crops()


def stage_of(weight):
    backbone = googlenet(weights=None, input_px=64, mean=[0.0] * 3, std=[1.0] * 3)
    net = Classifier(AverageFeatures(backbone), 6, side_px=80)
    data = SimpleNamespace(name="some", split=lambda name: Images())
    options = ClassificationOptions(
        examples=Examples(None), batch_size=2, epochs=1, dropout=0.0, auxiliary_weight=weight
    )
    stage = options.stage(net, data, ClassificationEvaluator())
    stage.log = lambda *_, **__: None
    return stage.train()


def test_the_loss_is_that_of_torchvisions_network():
    """Its own two classifiers, 0.3 times (Szegedy et al. 2014, section 5)."""
    torch.manual_seed(0)
    theirs = GoogLeNet(num_classes=6, aux_logits=True, init_weights=False).train()
    stage = stage_of(0.3)
    for number, layer in enumerate(list(theirs.children())[:16]):
        stage.model.features.backbone.conv[number].load_state_dict(layer.state_dict())
    stage.model.output.load_state_dict(theirs.fc.state_dict())
    for head, aux in zip(stage.auxiliary.heads, (theirs.aux1, theirs.aux2), strict=True):
        head.load_state_dict(aux.state_dict())
        head.dropout.p = aux.dropout.p = 0.0
    theirs.dropout.p = 0.0
    images, labels = torch.rand(4, 3, 64, 64), torch.tensor([0, 5, 2, 2])
    last, second, first = theirs(images)
    one, two, three = (F.cross_entropy(logits, labels) for logits in (last, first, second))
    loss = stage.training_step((images, labels), 0)
    torch.testing.assert_close(loss, one + 0.3 * (two + three))
    loss.backward()
    assert all(p.grad is not None for p in stage.parameters())


def test_none_without_weight():
    stage = stage_of(0.0)
    assert not list(stage.auxiliary.parameters())
    loss = stage.training_step((torch.rand(2, 3, 64, 64), torch.tensor([0, 1])), 0)
    assert loss.isfinite()


def test_outputs_are_collected_inside_alone():
    layer = torch.nn.Linear(2, 3)
    with outputs_of([layer]) as found:
        layer(torch.zeros(1, 2))
    layer(torch.zeros(1, 2))
    assert [output.shape for output in found] == [(1, 3)]
