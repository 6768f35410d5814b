"""Arrays of rows on disk: allocated once, filled, and read-only once they are whole."""

import numpy as np
import pytest

from detection.disk.arrays import allocated


def test_an_array_is_writable_until_it_is_whole(tmp_path):
    counts = np.array([2, 0, 1])
    array = allocated(tmp_path / "a", {"of": "test"}, counts, 3, "float32")
    array.rows[:] = 7
    array.done[:2] = 1
    assert allocated(tmp_path / "a", {"of": "test"}, counts, 3, "float32").rows.flags.writeable
    array.done[2] = 1
    whole = allocated(tmp_path / "a", {"of": "test"}, counts, 3, "float32")
    assert whole.done.all()
    assert (whole.rows == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        whole.rows[0] = 1
