"""Values that configs come to: the papers' settings, and choices that meet."""

import pytest
from conftest import composed
from omegaconf import OmegaConf


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
    assert (finetune.optimizer.lr, finetune.head_factor) == (1e-3, 10)
    assert (finetune.matcher.foreground_min_iou, finetune.matcher.background_min_iou) == (0.5, 0)
    assert (svm.rule.negative_max_iou, svm.options.c, svm.rule.duplicate_max_iou) == (0.3, 1e-3, 1)
    box = cfg.model.stages.box_regression
    assert (box.ridge, box.matcher.foreground_min_iou) == (1000, 0.60001)
    assert (cfg.model.features.padding_px, cfg.backbone.input_px) == (16, 227)
    assert (cfg.model.layer, cfg.model.combine.max_iou) == ("fc7", 0.3)
    det = composed("model=rcnn", "data=ilsvrc_det", "data.root=x")
    assert det.proposals.search.width_px == 500
    assert det.model.stages.svm.negative_images == 5000
    assert det.model.stages.finetune.length.min_steps == 50_000


def test_vgg16_is_fine_tuned_with_fewer_windows():
    """R-CNN, 3.3: 24, whatever the data; the command line wins."""
    words = ("model=rcnn", "backbone=vgg16")
    for data in ("voc07", "shapes", "ilsvrc_det"):
        assert composed(*words, f"data={data}").model.stages.finetune.batch_size == 24
    cfg = composed(*words, "model.stages.finetune.batch_size=7")
    assert cfg.model.stages.finetune.batch_size == 7


def test_published_seconds_of_table_6():
    """SPP-net 64 and 24 times as fast as R-CNN."""
    of = {column: composed(f"experiment=sppnet/table6/{row}").published for column, row in
          (("1", "ftfc7_1scale"), ("5", "ftfc7_bb_5scale"), ("rcnn", "rcnn_ftfc7"))}  # fmt: skip
    total = {column: figures["time/image/total_s"] for column, figures in of.items()}
    assert [round(total["rcnn"] / total[column]) for column in ("1", "5")] == [64, 24]
    for column, figures in of.items():
        parts = figures["time/image/conv_s"] + figures["time/image/fc_s"]
        assert parts == pytest.approx(total[column]), column


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
    assert finetune.schedule.at[0] * 300_000 == pytest.approx(250_000, rel=1e-3)
    assert finetune.optimizer.lr == 1e-4
    assert cfg.model.features.scales_px == [688]
    assert cfg.backbone.weights == "imagenet"
    assert (svm.rule.negative_max_iou, svm.rule.duplicate_max_iou) == (0.3, 0.7)
    assert cfg.data.evaluator.interpolation == "11point"
    assert len(cfg.data.annotations.classes) == 20


def test_command_line_wins_over_what_data_chooses():
    cfg = composed("data=shapes", "backbone=alexnet", "schedule=paper")
    assert cfg.backbone._target_.endswith("alexnet")
    assert cfg.model.stages.finetune.optimizer.lr == 1e-4


def test_a_schedule_changes_all_of_a_length():
    """Whatever the data says of another schedule."""
    of = {name: composed(f"schedule={name}", "data=shapes").model.stages for name in
          ("paper", "short")}  # fmt: skip
    assert of["paper"].finetune.length.steps_per_image * 5011 == pytest.approx(300_000, rel=1e-3)
    assert of["short"].finetune.length.steps_per_image == 2
    assert of["paper"].pretrain.sizes_px == of["short"].pretrain.sizes_px  # of the data
    for model in ("sppnet", "rcnn"):  # whatever the backbone says
        words = (f"model={model}", "data=voc", "data.root=x", "backbone=efficientnet_lite0")
        papers = composed(f"model={model}", "data=voc07", "schedule=paper").model.stages.finetune
        assert composed(*words, "schedule=paper").model.stages.finetune.length == papers.length
    det = ["data=ilsvrc_det", "data.root=x"]
    for model, steps in (("sppnet", 300_000), ("rcnn", 50_000)):
        for schedule, share in (("paper", 1), ("short", 0.1)):
            cfg = composed(f"model={model}", f"schedule={schedule}", *det)
            length = cfg.model.stages.finetune.length
            assert length == {**length, "steps_per_image": 0, "min_steps": steps * share}


@pytest.mark.parametrize("model", ["sppnet", "rcnn"])
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "zf5", "vgg16"])
@pytest.mark.parametrize("data", ["ilsvrc_det", "shapes", "voc", "voc07"])
def test_no_value_revives_what_another_leaves_out(model, backbone, data):
    """Files of two choices set values of stages that a third may have set to null."""
    cfg = composed(f"model={model}", f"backbone={backbone}", f"data={data}", "data.root=x")
    stages = OmegaConf.to_container(cfg.model.stages, resolve=True)
    assert stages["finetune"]
    for stage in filter(None, stages.values()):
        assert "_target_" in stage
        for value in stage.values():
            assert not isinstance(value, dict) or "_target_" in value or "transforms" in value
