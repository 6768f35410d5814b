"""Runs side by side: what is one row, what is a column, what cannot be compared."""

import csv
import json
import subprocess
import sys
from io import StringIO

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image

from detection.errors import UserError
from detection.report.comparison import as_csv, as_markdown, as_page
from detection.runs.compare import compare, find_runs, read_run, start

FIGURES = {
    "test/map": 0.5,
    "test/interval/map_low": 0.4,
    "time/finetune_s": 90.0,
    "time/test_s": 30.0,
}


def make(folder, seed=1, model="sppnet", lr=0.1, figures=FIGURES, images=("a", "b"), **changes):
    """A run's folder, as a run leaves it."""
    folder.mkdir(parents=True)
    config = {
        "seed": seed, "num_models": 1, "run_dir": str(folder), "paths": {"runs": str(folder)},
        "choices": {"model": model, "data": "voc"}, "data": {"name": "voc", "root": "/data"},
        "model": {"_target_": f"x.{model}", "stages": {"finetune": {"lr": lr}, "svm": None}},
        **changes,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if figures:
        (folder / "metrics.json").write_text(json.dumps(figures))
        names = {"image_ids": np.array(images), "class_names": np.array(["cat"])}
        np.savez(folder / "predictions.npz", **names)
    return folder


def table_of(*folders, **options):
    return compare([read_run(folder) for folder in folders], **options)


def test_seeds_are_one_row_with_mean_and_deviation(tmp_path):
    folders = [
        make(
            tmp_path / str(seed),
            seed,
            figures={**FIGURES, "test/map": figure, "test/ap/cat": float("nan")},
        )
        for seed, figure in ((1, 0.5), (2, 0.6), (3, 0.7))
    ]
    table = table_of(*folders)
    assert table.columns == []
    (row,) = table.rows
    assert row.name == "1 + 2"
    assert row.figure("test/map") == "60.0 ± 10.0"
    assert row.figure("test/ap/cat") == "- ± -"  # without a test object
    assert table_of(*folders, seeds=False).columns == ["seed"]
    assert [r.values for r in table_of(*folders, seeds=False).rows] == [[1], [2], [3]]


def test_columns_are_what_differs_and_another_model_is_one_word(tmp_path):
    table = table_of(
        make(tmp_path / "a"),
        make(tmp_path / "b", lr=0.2),
        make(tmp_path / "c", model="rcnn", lr=0.7),
    )
    assert table.columns == ["model", "model.stages.finetune.lr"]
    assert [row.values for row in table.rows] == [
        ["sppnet", 0.1], ["sppnet", 0.2], ["rcnn", 0.7],
    ]  # fmt: skip
    assert table.heading() == ["run", *table.columns, "map, %", "min"]
    assert [row.minutes() for row in table.rows] == ["2.0"] * 3


def test_published_figures_stand_beside(tmp_path):
    figures = {**FIGURES, "published/test/map": 0.592}
    table = table_of(make(tmp_path / "a", figures=figures), make(tmp_path / "b", lr=0.2))
    assert [row.figure("test/map") for row in table.rows] == ["50.0 (59.2)", "50.0"]


def test_what_cannot_be_compared_is_told_and_nothing_is_refused(tmp_path):
    other = make(tmp_path / "other", images=("a", "c", "d"), lr=0.3)
    begun = make(tmp_path / "begun", figures=None)
    (begun / "stages" / "1_finetune").mkdir(parents=True)
    (begun / "stages" / "1_finetune" / "done").write_text("{}")
    lost = make(tmp_path / "lost", model="rcnn")
    (lost / "predictions.npz").unlink()
    table = table_of(make(tmp_path / "one"), other, begun, lost)
    text = table.text()
    assert "figures of tests on other images cannot be compared: one; other" in text
    assert "begun: unfinished: 1 of 1 stages done" in text
    assert "lost: on which images it was tested is not kept" in text
    # an unfinished run is not folded into a finished one of the same config
    assert len(table.rows) == 4


def test_a_run_that_kept_no_choices_is_named_by_its_models_class(tmp_path):
    table = table_of(
        make(tmp_path / "a", choices=None), make(tmp_path / "b", model="rcnn", choices=None)
    )
    assert [row.values[0] for row in table.rows] == ["sppnet", "rcnn"]


def test_files_hold_the_same_table(tmp_path):
    folders = [make(tmp_path / "a|b"), make(tmp_path / "c", lr=0.25, seed=4)]
    for folder in folders:
        (folder / "report" / "pictures").mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (30, 20)).save(folder / f"report/pictures/random_{number}.jpg")
    other = make(tmp_path / "other", images=("z",), lr=0.5)
    table = table_of(*folders, other)
    lines = as_markdown(table).splitlines()
    assert lines[0] == "| run | model.stages.finetune.lr | map, % | min |"
    assert lines[2] == "| a¦b | 0.1 | 50.0 | 2.0 |"
    rows = list(csv.DictReader(StringIO(as_csv(table))))
    assert [float(row["test/map"]) for row in rows] == [0.5] * 3
    assert rows[1]["model.stages.finetune.lr"] == "0.25"
    page = as_page(table)
    assert page.count("data:image/jpeg;base64,") == 4
    assert page.count("The same test images") == 1
    assert "cannot be compared" in page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name at least one run"),
        (["nowhere"], "there is no run at nowhere: a run's folder has a config.yaml"),
        (["{}/a", "out=x.pdf"], "out=x.pdf: its name must end in .md, .csv, .html"),
        (["{}/a", "figures=[test/mop]"], "figures: no run has test/mop; there are"),
        (["{}/a", "fold=no"], "fold=no: true or false"),
        (["{}/torn"], "metrics.json line 1 is not JSON"),
    ],
)
def test_mistakes_end_with_one_line(words, message, tmp_path, monkeypatch):
    make(tmp_path / "a")
    (make(tmp_path / "torn") / "metrics.json").write_text('{"test/map": ')
    monkeypatch.setattr(sys, "argv", ["compare", *(w.format(tmp_path) for w in words)])
    with pytest.raises(UserError) as refused:
        start()
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_data_of_the_same_name_is_another_row(tmp_path):
    other = {"name": "voc", "root": "/cards"}
    table = table_of(
        make(tmp_path / "cells"), make(tmp_path / "cards", seed=2, data=other, images=("x", "y"))
    )
    assert table.columns == ["data.root"]
    assert [row.figure("test/map") for row in table.rows] == ["50.0", "50.0"]


def test_unfinished_runs_alone_have_a_table(tmp_path):
    table = table_of(make(tmp_path / "a", figures=None))
    assert table.heading() == ["run", "state", "min"]
    assert [len(table.cells(row)) for row in table.rows] == [3]


def test_a_name_may_hold_what_a_pattern_may(tmp_path):
    folder = make(tmp_path / "run[1]")
    assert find_runs([str(folder)]) == ([folder], [])


def test_a_folder_of_runs_names_them_and_what_is_no_run_is_told(tmp_path):
    make(tmp_path / "runs" / "a")
    make(tmp_path / "runs" / "b")
    notes = tmp_path / "runs" / "notes"
    notes.mkdir()
    runs = str(tmp_path / "runs")
    for word, told in ((runs, []), (f"{runs}/*", [f"{notes} is no run"])):
        found, others = find_runs([word, f"{runs}/a"])
        assert [folder.name for folder in found] == ["a", "b"]
        assert others == told
    with pytest.raises(UserError, match="there is no run"):
        find_runs([str(notes)])


def test_tables_need_nothing_slow():
    """A hundred runs are compared while torch would still be loading."""
    code = "import sys, detection.runs.compare; print({'torch', 'cv2'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
