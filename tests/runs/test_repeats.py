"""Runs on several random splits: one each, what is done is not done again, mean and spread."""

import json

import numpy as np
import pytest

from detection.runs.repeats import of_each_split, run_on_splits

CONFIG = {"seed": 1, "data": {"name": "x", "layout": {"train": 30, "seed": [4, 7, 9]}}}
ACCURACY = {4: 0.5, 7: 0.75, 9: 0.4}


def test_one_seed_is_one_run():
    layout = {**CONFIG["data"]["layout"], "seed": 4}
    assert of_each_split({"data": {"layout": layout}}) == {}
    assert of_each_split({"data": {"source": None}}) == {}


def test_mean_of_the_splits_that_were_done_before_too(tmp_path):
    ran = []

    def run(config, folder):
        seed = config["data"]["layout"]["seed"]
        ran.append(seed)
        accuracy = ACCURACY[seed]
        figures = {
            "test/top1_error": 1 - accuracy,
            "test/top5_error": 0.1,
            "test/top1_accuracy": accuracy,
            "time/svm_s": 2.0,
            "published/test/top1_accuracy": 0.9,
        }
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(figures))
        return figures

    first = run_on_splits(CONFIG, tmp_path, [], run)
    assert ran == [4, 7, 9]
    accuracies = list(ACCURACY.values())
    assert first["test/top1_accuracy"] == pytest.approx(np.mean(accuracies))
    assert first["test/top1_accuracy_sd"] == pytest.approx(np.std(accuracies, ddof=1))
    assert first["test/top5_error_sd"] == 0
    assert first["time/svm_s"] == 6
    assert first["published/test/top1_accuracy"] == pytest.approx(0.9)
    assert json.loads((tmp_path / "metrics.json").read_text()) == first
    page = (tmp_path / "report" / "index.html").read_text()
    assert "55.0 ± 18.0 %" in page
    assert "split_7/report/index.html" in page
    (tmp_path / "split_7" / "metrics.json").unlink()
    (tmp_path / "split_7").rmdir()
    assert run_on_splits(CONFIG, tmp_path, [], run) == first
    assert ran == [4, 7, 9, 7]


def test_processes_but_the_first_report_nothing(tmp_path):
    assert run_on_splits(CONFIG, tmp_path, [], lambda config, folder: {}) == {}
    assert not (tmp_path / "metrics.json").exists()
