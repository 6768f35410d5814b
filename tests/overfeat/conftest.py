"""Data that tests of OverFeat share."""

from pathlib import Path

import pytest
from rectangles import draw_rectangles


@pytest.fixture(scope="session")
def rectangles(tmp_path_factory) -> Path:
    """A folder in VOC's layout, one object an image."""
    return draw_rectangles(tmp_path_factory.mktemp("rectangles"))
