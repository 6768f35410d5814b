"""Which stages are done."""

from detection.runs.stages import find_done


def test_names_of_stages_are_compared_whole(tmp_path):
    """`3_classwise_regress` is not `regress`."""
    for name in ("2_score", "3_classwise_regress"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done").touch()
    assert find_done(tmp_path, "regress") is None
    assert find_done(tmp_path, "score").parent.name == "2_score"
    assert find_done(tmp_path, "classwise_regress").parent.name == "3_classwise_regress"
    assert find_done(tmp_path / "none", "score") is None
