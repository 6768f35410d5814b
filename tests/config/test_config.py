"""Every config composes; mistakes are refused with the nearest right name, and quickly."""

import subprocess
import sys

import pytest
from conftest import CHOICES, CONF, EXPERIMENTS, ROOT, composed
from omegaconf import OmegaConf

from detection.config.build import build, targets
from detection.config.check import compare
from detection.config.plain import plain
from detection.disk.checkpoints import make_detector
from detection.errors import UserError
from detection.runs.resume import refuse_other_config


@pytest.mark.parametrize("choice", CHOICES)
def test_every_choice_composes_and_its_targets_exist(choice):
    from hydra.utils import get_object

    of_classes = "classification_data@" in (CONF / f"{choice.replace('=', '/')}.yaml").read_text()
    config = plain(composed(*(["model=sppnet_classifier"] if of_classes else []), choice))
    for target in targets(config):
        assert callable(get_object(target))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes_and_builds_its_detector(name):
    cfg = composed(f"experiment={name}", "backbone.width=0.05", "backbone.weights=null")
    assert len(cfg.published) > 0 or "appendix_a" in name  # which prints none
    assert all(0 < figure < 1 for figure in cfg.published.values())
    config = plain(cfg)
    detector = make_detector({"backbone": config["backbone"], **config["model"]}, 20)
    if "scoring" in cfg.model.detector:
        assert detector.svm.in_features == detector.width(cfg.model.layer)


def test_published_figures_of_rcnn():
    """R-CNN, tables 1 to 4 and appendix B."""
    want = {
        "table1": {"rcnn": 50.2, "rcnn_bb": 53.7},
        "table2": {"pool5": 44.2, "fc6": 46.2, "fc7": 44.7, "ft_pool5": 47.3, "ft_fc6": 53.1,
                   "ft_fc7": 54.2, "ft_fc7_bb": 58.5},
        "table3": {"tnet": 54.2, "tnet_bb": 58.5, "onet": 62.2, "onet_bb": 66.0},
        "table4": {"fc6_val1": 20.9, "fc6_val1_train500": 24.1, "fc6_val1_train1000": 24.1,
                   "ft_val1": 26.5, "ft_val1_train1000": 29.7, "ft_val1_train1000_bb": 31.0,
                   "test": 30.2, "test_bb": 31.4},
        "appendix_b": {"svm": 54.2, "softmax": 50.9},
    }  # fmt: skip
    for table, rows in want.items():
        for row, figure in rows.items():
            cfg = composed(f"experiment=rcnn/{table}/{row}")
            assert 100 * cfg.published["test/map"] == pytest.approx(figure)
            stages = cfg.model.stages
            assert (stages.box_regression is not None) == row.endswith("bb")
            if table in ("table1", "table2", "table3"):
                ap = [v for k, v in cfg.published.items() if k.startswith("test/ap/")]
                assert 5 * sum(ap) == pytest.approx(figure, abs=0.06)
            if table in ("table2", "table4"):
                not_tuned = ("pool5", "fc6", "fc7", "fc6_val1")
                tuned = not (row in not_tuned or row.startswith("fc6_"))
                assert (stages.finetune is not None) == tuned


def test_rcnn_is_the_papers_setting():
    """R-CNN, sections 2 and 4; ORIGINAL_FACTS, 1.4 to 1.7."""
    cfg = composed("model=rcnn", "data=voc07", "backbone=caffenet")
    finetune, svm = cfg.model.stages.finetune, cfg.model.stages.svm
    assert round(finetune.length.steps_per_image * 5011) == pytest.approx(70_000, rel=1e-3)
    assert [round(at * 70) for at in finetune.schedule.at] == [20, 40, 60]
    assert (finetune.batch_size, finetune.foreground_fraction) == (128, 0.25)
    assert (finetune.rates.base, finetune.rates.head_factor) == (1e-3, 10)
    assert (finetune.rule.foreground_min_iou, finetune.rule.background_min_iou) == (0.5, 0)
    assert (svm.rule.negative_max_iou, svm.options.c, svm.rule.duplicate_max_iou) == (0.3, 1e-3, 1)
    box = cfg.model.stages.box_regression
    assert (box.ridge, box.min_iou) == (1000, 0.60001)
    assert (cfg.model.features.padding_px, cfg.backbone.input_px) == (16, 227)
    assert (cfg.model.layer, cfg.model.detector.suppression.max_iou) == ("fc7", 0.3)
    det = composed("model=rcnn", "data=ilsvrc_det", "data.root=x")
    assert det.model.detector.search.width_px == 500
    assert det.model.stages.svm.negative_images == 5000
    assert det.model.stages.finetune.length.min_steps == 50_000


def test_vgg16_is_fine_tuned_with_fewer_windows():
    """R-CNN, 3.3: 24, whatever the data; the command line wins."""
    words = ("model=rcnn", "backbone=vgg16")
    for data in ("voc07", "shapes", "ilsvrc_det"):
        assert composed(*words, f"data={data}").model.stages.finetune.batch_size == 24
    cfg = composed(*words, "recipe.warped_batch_size=7")
    assert cfg.model.stages.finetune.batch_size == 7


def test_published_figures_of_table_6():
    want = {
        "pool5": (43.0, 44.9),
        "fc6": (42.5, 44.8),
        "ftfc6": (52.3, 53.7),
        "ftfc7": (54.5, 55.2),
        "ftfc7_bb": (58.0, 59.2),
    }
    for row, figures in want.items():
        for scales, figure in zip((1, 5), figures, strict=True):
            cfg = composed(f"experiment=sppnet/table6/{row}_{scales}scale")
            assert 100 * cfg.published["test/map"] == pytest.approx(figure)
            assert len(cfg.model.features.scales_px) == scales
            assert (cfg.model.stages.finetune is not None) == row.startswith("ft")
            assert (cfg.model.stages.box_regression is not None) == row.endswith("bb")


def test_voc07_is_the_papers_setting():
    """SPP-net, section 4.1."""
    cfg = composed("model=sppnet", "data=voc07")
    finetune, svm = cfg.model.stages.finetune, cfg.model.stages.svm
    assert round(finetune.length.steps_per_image * 5011) == pytest.approx(300_000, rel=1e-3)
    assert finetune.drop_at * 300_000 == pytest.approx(250_000, rel=1e-3)
    assert finetune.learning_rate == 1e-4
    assert cfg.model.features.scales_px == [688]
    assert cfg.backbone.weights == "imagenet"
    assert (svm.rule.negative_max_iou, svm.rule.duplicate_max_iou) == (0.3, 0.7)
    assert cfg.data.interpolation == "11point"
    assert len(cfg.data.classes) == 20


def test_command_line_wins_over_what_data_chooses():
    cfg = composed("data=shapes", "backbone=alexnet", "recipe=paper")
    assert cfg.backbone._target_.endswith("alexnet")
    assert cfg.recipe.finetune_learning_rate == 1e-4


def run(*words):
    command = [sys.executable, "train.py", *words]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=spnet"], "there is no model=spnet (did you mean sppnet?)"),
        (["trainr=cpu"], "(did you mean trainer?)"),
        (["model.detector.laier=fc6"], "(did you mean model.detector.layer?)"),
        (["+model.detector.nms=1"], "there is no option 'model.detector.nms'"),
        (["model.features.shrink_px=wide"], "'wide' is a word, but a number is wanted"),
        (["model.features.scales_px=688"], "688 is a whole number, but a list is wanted"),
        (["data=voc", "data.root=/nowhere"], "data.root=/nowhere: there is no such folder"),
    ],
)
def test_a_mistake_ends_with_2_and_one_clear_error(words, message, tmp_path):
    result = run(*words, f"run_dir={tmp_path}/run", "backbone.weights=null")
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_trace_shows_the_traceback(tmp_path):
    assert "Traceback" in run("data=voc", "debug=trace", f"run_dir={tmp_path}").stderr


def test_help_fits_a_screen_and_lists_the_groups():
    text = run("--help").stdout
    assert len(text.splitlines()) <= 40
    for group in ("model", "data", "backbone", "trainer", "logger", "experiment", "sweep"):
        assert f"{group}" in text


@pytest.mark.parametrize(
    "words", [["--help"], ["--cfg", "job"], ["model.detector.laier=fc6"], ["model.layer=fc8"]]
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
                "_target_": "detection.data.voc.release.existing_folder",
                "root": {"_target_": "os.system"},
            }
        )


def test_build_tells_of_unknown_arguments():
    with pytest.raises(UserError, match="unexpected keyword argument 'colour'"):
        build({"_target_": "detection.combine.nms.Suppression", "colour": 1})


def test_null_switches_a_stage_off_but_not_a_number():
    default = OmegaConf.create({"stage": {"x": 1}, "rate": 0.1})
    compare(OmegaConf.create({"stage": None, "rate": 1}), default, "")
    with pytest.raises(UserError, match="rate=None is null, but a number is wanted"):
        compare(OmegaConf.create({"stage": None, "rate": None}), default, "")


def test_run_dir_of_another_config_is_refused(tmp_path):
    old = {"seed": 1, "model": {"layer": "fc6"}, "trainer": {"devices": 1}}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(old)))
    refuse_other_config(tmp_path, {**old, "trainer": {"devices": 2}})
    with pytest.raises(UserError, match=r"model\.layer: 'fc6' there, 'fc7' now"):
        refuse_other_config(tmp_path, {**old, "model": {"layer": "fc7"}})
    refuse_other_config(tmp_path, {**old, "views": "ten"})  # the test is made anew
    with pytest.raises(UserError, match="views: None there, 'ten' now"):  # that of a split is not
        refuse_other_config(tmp_path, {**old, "views": "ten"}, ("seed", "views"))


def test_config_files_stay_short():
    for path in CONF.rglob("*.yaml"):
        assert len(path.read_text().splitlines()) <= 45, path
