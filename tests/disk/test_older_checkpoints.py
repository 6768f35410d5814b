"""Options that came after a checkpoint was written."""

from detection.disk.older_checkpoints import completed


def test_a_detector_of_before_keeps_the_proposals_it_was_trained_on():
    before = {"model": {"search": {"mode": "fast"}}, "data": {"name": "shapes", "processes": 4}}
    now = completed(before)
    assert now["model"]["search"] == {"mode": "fast", "engine": "opencv", "max_side_px": None}
    assert now["data"] == {"name": "shapes", "threads": 4}
    assert "engine" not in before["model"]["search"]
    assert completed(now) == now


def test_learnt_proposals_and_runs_from_before_accumulation():
    search = {"_target_": "detection.rpn.proposals.RPNSearch", "anchors": {}}
    before = {"model": {"search": search}, "trainer": {"devices": 1}}
    now = completed(before)
    assert now["model"]["search"] == search
    assert now["trainer"] == {"devices": 1, "accumulate_grad_batches": 1}


def test_other_models_stay_as_they_are():
    content = {"model": {"layer": "fc7"}, "data": {}}
    assert completed(content) == content
