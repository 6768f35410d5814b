"""Every command of the README: it composes, its options are right, and (slow) it runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from commands import run
from conftest import ROOT, FakeVOC
from fake_cls import class_folders, kaggle, with_boxes
from fake_det import small_det

from detection.data.voc.annotation import VOCObject

TEXT = (ROOT / "README.md").read_text()
LINES = [line.partition(" #")[0].strip()
         for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
         for line in block.splitlines()]  # fmt: skip
COMMANDS = [line.removeprefix("pip install uv && ").removeprefix("uv run python ")
            for line in LINES if "uv run python" in line and "benchmarks" not in line]  # fmt: skip
TRAINING = [c for c in COMMANDS if c.startswith("train.py")]
TINY = ["debug=fast", "trainer=cpu", "logger=csv"]
REFUSED = ("there is no", "did you mean", "choose one of", "any more")


def test_the_readme_has_its_commands():
    assert len(TRAINING) >= 12
    assert sum(c.startswith("evaluate.py") for c in COMMANDS) >= 4
    assert sum("detection.extract" in c or "detection.describe" in c for c in COMMANDS) >= 2


def words_of(command):
    """A command without what needs a GPU, weights or several runs of a sweep."""
    words = [w for w in shlex.split(command)[1:] if not w.startswith("trainer")]
    words = [w for w in words if not w.startswith("backbone.weights")]
    return [w.split(",")[0] if w.startswith(("seed", "backbone=")) else w
            for w in words if w != "-m"]  # fmt: skip


@pytest.mark.parametrize("command", TRAINING)
def test_a_command_is_right(command, tmp_path):
    """As `--cfg job` answers, which checks nothing but names and choices."""
    words = [f"data.root={tmp_path}" if w.startswith("data.root") else w
             for w in words_of(command)]  # fmt: skip
    words = [w for w in words if "=FILE" not in w]
    result = run("train.py", *words, "backbone.weights=null", "--cfg", "job")
    assert not any(mistake in result.stderr for mistake in REFUSED)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """A folder for each kind of data that a command names."""
    voc = FakeVOC(tmp_path_factory.mktemp("voc") / "VOCdevkit" / "VOC2007")
    ids = [f"{n:06d}" for n in range(16)]
    names = ("aeroplane", "cat", "dog")
    for number, image_id in enumerate(ids):
        voc.add(image_id, [VOCObject(names[number % 3], (10, 10, 80, 80))], size=(100, 130))
    voc.lists(trainval=ids[:10], train=ids[:10], test=ids[10:])
    return {
        "voc": voc.root,
        "voc07": voc.root.parents[1],
        "voc07_cls": voc.root.parents[1],
        "ilsvrc_det": small_det(tmp_path_factory.mktemp("det"), images=8).root,
        "ilsvrc_cls": kaggle(tmp_path_factory.mktemp("cls"), train=12),
        "ilsvrc_loc": with_boxes(kaggle(tmp_path_factory.mktemp("loc"), solution=False)),
        "voc_loc": voc.root,
        "image_folder": class_folders(tmp_path_factory.mktemp("own"), test="test", each=12),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, trees, paths):
    """A detector's and a classifier's run."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["backbone=zf5", "backbone.width=0.05", "backbone.weights=null"]
    run("train.py", *TINY, *paths, *small, "data=voc", f"data.root={trees['voc']}",
        f"run_dir={folder / 'detector'}")  # fmt: skip
    run("train.py", *TINY, *paths, "model=overfeat", "data=shapes_cls", "backbone.width=0.05",
        f"run_dir={folder / 'classifier'}")  # fmt: skip
    run("train.py", *TINY, *paths, "model=sppnet_classifier", "data=shapes_cls",
        "backbone.width=0.05", f"run_dir={folder / 'pyramid'}")  # fmt: skip
    run("train.py", *TINY, *paths, "model=overfeat_localizer", "data=shapes_loc",
        f"run_dir={folder / 'localizer'}")  # fmt: skip
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, trees, finished, paths, tmp_path):
    """On fake data, in a tiny setting."""
    words = words_of(command)
    data = next((w.removeprefix("data=") for w in words if w.startswith("data=")), None)
    if command.startswith("train.py"):
        words = [w for w in words if "=FILE" not in w]
        experiment = [w for w in words if w.startswith("experiment=")]
        localizes = any(w.startswith("experiment=overfeat/figure9") for w in words)
        data = "ilsvrc_loc" if localizes else "voc07" if experiment else data
        if data in trees:
            words = [w for w in words if not w.startswith("data.root")]
            words.append(f"data.root={trees[data]}")
        weights = "null"
        if "feature_svm" in command:
            weights = finished / "pyramid" / "model.ckpt"
        lite0 = any(m in command for m in ("model=overfeat_", "model=rpn"))  # has no width
        wide = ("backbone=zf5" in words and "null" in command) or lite0
        width = [] if wide else ["backbone.width=0.05"]
        weights = "imagenet" if lite0 else weights
        run("train.py", *words, *TINY, *paths, *width, f"backbone.weights={weights}",
            "data.num_workers=0", "data.threads=1", f"run_dir={tmp_path / 'run'}")  # fmt: skip
        assert (tmp_path / "run" / "metrics.json").is_file()
    elif command.startswith("evaluate.py"):
        kind = "classifier" if "views" in command else "detector"
        kind = "localizer" if "scales" in command or "classes=" in command else kind
        place = str(finished / kind)
        words = [w.replace("runs/<classifier>", str(finished / "classifier")) for w in words]
        words = [w.replace("scales.sizes=[224,256,320]", "scales.sizes=[256]") for w in words]
        words = [re.sub(r"runs/<\w+>", place, w).replace("OTHER", str(trees["voc"])) for w in words]
        run("evaluate.py", *words, "trainer=cpu", *paths, f"run_dir={tmp_path / 'run'}")
        assert (tmp_path / "run" / "metrics.json").is_file()
    else:
        shutil.copytree(trees["voc"] / "JPEGImages", tmp_path / "images")
        module, *rest = shlex.split(command)[1:]
        rest = [w.replace("runs/<run>", str(finished / "classifier"))
                .replace("FOLDER", str(tmp_path / "images"))
                .replace("out=found", f"out={tmp_path / 'found'}")
                .replace("features.npz", str(tmp_path / "features.npz")) for w in rest]  # fmt: skip
        run("-m", module, *rest)
        assert "extract" not in module or Path(tmp_path / "features.npz").is_file()
