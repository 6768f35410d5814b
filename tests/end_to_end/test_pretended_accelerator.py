"""Every stage and test of what localises and proposes, on a pretended accelerator.

It computes on the CPU and raises where CUDA would, as for tensors of two devices. Those that share
most of their code with another are slow tests.
"""

import pytest
from commands import run
from conftest import TEST_DATA

TOOL = TEST_DATA.parent / "tools" / "fake_cuda.py"


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ["model=overfeat_localizer", "data=shapes_loc",
             "model.stages.regress.backpropagate=true"], marks=pytest.mark.slow,
        ),
        pytest.param(["model=overfeat_detector", "data=shapes"], marks=pytest.mark.slow),
        ["model=rpn_rcnn", "data=shapes_loc"],
        pytest.param(["model=object_scoring", "data=shapes_loc"], marks=pytest.mark.slow),
        pytest.param(
            ["model=object_scoring", "data=shapes_loc", "scales=squares"], marks=pytest.mark.slow,
        ),
        pytest.param(
            ["model=sppnet", "data=shapes", "proposals=rpn", "proposals.search.sizes=[96]"],
            marks=pytest.mark.slow,
        ),
    ],
)  # fmt: skip
def test_no_two_devices_meet(words, paths, tmp_path):
    if not TOOL.is_file():
        pytest.skip(f"{TOOL} is missing: tools stand beside the folder of DETECTION_TEST_DATA")
    common = [
        "debug=fast",
        "data.limit=4",
        "trainer=cpu",
        "logger=csv",
        *paths,
        f"run_dir={tmp_path / 'run'}",
    ]
    run("train.py", *words, *common, under=(str(TOOL),))
    assert (tmp_path / "run" / "metrics.json").is_file()
