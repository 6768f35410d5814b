"""What a test is on: the folder of the training, or another."""

import os
from types import SimpleNamespace

import pytest

from detection.runs import evaluate

KEPT = {"name": "voc", "fractions": {"train": 0.7, "test": 0.3}}


def fractions(monkeypatch, root, trained_on, *words):
    """Shares of a folder without lists that is tested."""
    hydra = SimpleNamespace(overrides=SimpleNamespace(task=list(words)))
    monkeypatch.setattr(evaluate, "HydraConfig", SimpleNamespace(get=lambda: hydra))
    config = {"data": {**KEPT, "root": root}}
    first = {"data": {**KEPT, "root": trained_on}, "class_names": ["a"]}
    return evaluate.data_config(config, first)["fractions"]


def test_the_folder_of_the_training_is_split_as_it_was_however_it_is_written(tmp_path, monkeypatch):
    """Else images would be tested that were trained on."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").mkdir()
    os.symlink("voc", "link")
    for root in ("voc", "./voc/", "link", str(tmp_path / "voc"), "../" + tmp_path.name + "/voc"):
        assert fractions(monkeypatch, root, str(tmp_path / "voc")) == KEPT["fractions"]
        assert fractions(monkeypatch, str(tmp_path / "voc"), root) == KEPT["fractions"]


def test_of_another_folder_all_is_tested_and_it_is_told(tmp_path, monkeypatch, caplog):
    assert fractions(monkeypatch, str(tmp_path), "/elsewhere") == {"test": 1.0}
    assert "trained on /elsewhere: if that was the same" in caplog.text


@pytest.mark.parametrize("word", [
    "data.fractions={test: 0.3}", "data.fractions.test=0.3", "+data.fractions.test=0.3",
])  # fmt: skip
def test_shares_that_are_asked_for_stay(word, tmp_path, monkeypatch):
    assert fractions(monkeypatch, str(tmp_path), "/elsewhere", word) == KEPT["fractions"]
