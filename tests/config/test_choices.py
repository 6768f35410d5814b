"""Words of options, read from sources, against what Python says of the imported ones."""

import inspect
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from conftest import CHOICES, composed
from hydra.utils import get_object

from detection.config.build import targets
from detection.config.choices import check_words, words_of
from detection.config.plain import plain
from detection.errors import UserError


def literals(hint: Any) -> list[str]:
    """The words of a `Literal`, also where it may be None instead."""
    if get_origin(hint) is Literal:
        return [str(word) for word in get_args(hint)]
    return [word for part in get_args(hint) for word in literals(part)]


def test_sources_tell_what_imports_tell():
    of_classes = ("data=ilsvrc_cls", "data=caltech101", "model=sppnet_classifier")
    found = {"detection.runs.evaluate.restore_all"}
    for choice in [*of_classes, *CHOICES]:
        words = ["model=sppnet_classifier", "data=ilsvrc_cls"] if "_cls" in choice else []
        found |= set(targets(plain(composed(*words, choice))))
    ours = sorted(t for t in found if t.startswith("detection."))
    assert len(ours) > 40
    with_words = 0
    for target in ours:
        made = get_object(target)
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
        want = {name: words for name, hint in hints.items() if (words := literals(hint))}
        assert words_of(target) == want, target
        with_words += len(want) > 0
    assert with_words > 8


def test_unknown_target():
    with pytest.raises(UserError, match=r"_target_=detection\.data\.nowhere\.Nothing: there"):
        words_of("detection.data.nowhere.Nothing")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model.scoring=sofmax", "scoring=sofmax: choose one of svm, softmax"),
        ("model.layer=fc8", "model.layer=fc8: choose one of pool5, fc6, fc7"),
        (
            "data.annotations.bad_boxes=clipp",
            "data.annotations.bad_boxes=clipp: choose one of clip, refuse",
        ),
    ],
)
def test_unknown_words_are_refused_with_the_known(word, message):
    """They would otherwise be taken for the last of the known."""
    with pytest.raises(UserError, match=message):
        check_words(plain(composed(word)))


def test_evaluation_refuses_an_unknown_precision():
    with pytest.raises(UserError, match="precision=bf16: choose one of float32, bfloat16"):
        check_words({"_target_": "detection.runs.evaluate.restore_all", "precision": "bf16"})
    check_words({"_target_": "detection.runs.evaluate.restore_all", "precision": None})
