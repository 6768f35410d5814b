"""Views of an image and the way back."""

import numpy as np
import pytest
import torch
from fake_models import BACKBONE
from hydra.utils import instantiate

from detection.data.samples import Sample, as_image
from detection.errors import UserError
from detection.localization.views import ScaledViews

SQUARE = torch.tensor([[40.0, 20, 80, 60]])


def sample_with_square(height=100, width=160):
    """A black image with a white square."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[20:60, 40:80] = 255
    return Sample(as_image(pixels), {}, "x", 0)


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": [200, 90]},
        {"sizes": [[150, 300]], "flip": True},
        {"sizes": [120], "crop": True, "flip": True},
    ],
)
def test_boxes_find_their_objects_in_every_view_and_back(options):
    views = ScaledViews(**options)
    views.bind(instantiate(BACKBONE), 1)
    sample = sample_with_square()
    seen, frames = views(sample), views.frames(sample.size)
    assert seen.size == (100, 160)
    assert len(seen.views[0]) == len(frames)
    for view, frame in zip(seen.views[0], frames, strict=True):
        assert tuple(view.shape[1:]) == frame.size
        box = frame.to_view(SQUARE)
        torch.testing.assert_close(frame.to_original(box), SQUARE)
        ys, xs = np.nonzero(view[0].numpy() > 127)
        found = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        limits = [0, 0, frame.size[1], frame.size[0]] * 2
        clipped = np.clip(box[0].numpy(), 0, np.array(limits)[[2, 3, 2, 3]])
        assert np.abs(np.array(found) - clipped).max() <= 1


def test_a_smaller_decoding_of_a_photograph_gives_the_same_frames():
    views = ScaledViews([64])
    whole = sample_with_square(402, 641)
    small = Sample(whole.image[:, ::2, ::2], {}, "x", 0, stored_px=(402, 641))
    assert views.frames(whole.size) == views.frames(small.size)
    assert views(whole).views[0][0].shape == views(small).views[0][0].shape


def test_portraits_are_turned_to_pairs_of_sides():
    views = ScaledViews([[100, 150]])
    assert views.frames((300, 200))[0].size == (150, 100)
    assert views.frames((200, 300))[0].size == (100, 150)


def test_what_is_too_small_or_no_size_is_refused():
    backbone = instantiate(BACKBONE)
    with pytest.raises(UserError, match="a scale of 20 pixels is too small"):
        ScaledViews([64, 20]).bind(backbone, 3)
    for sizes in ([], [[1, 2, 3]], ["ab"], [0], [True]):
        with pytest.raises(UserError, match="pairs of height and width"):
            ScaledViews(sizes)
