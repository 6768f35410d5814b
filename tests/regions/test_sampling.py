"""Which windows are trained on."""

import numpy as np
import pytest
import torch

from detection.data.ground_truth import GroundTruth
from detection.errors import UserError
from detection.matching import Matcher
from detection.regions.sampling import Windows, draw, draw_rows, label_windows

RULE = Matcher(0.5, 0.1, 0.5)


class Dataset:
    """Two images, one of them without objects."""

    objects = (
        GroundTruth(torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1]), torch.tensor([False])),
        GroundTruth(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool()),
    )

    def __len__(self):
        return 2

    def gt(self, index):
        return self.objects[index]

    def regions(self, index):
        inside = [[0.0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 10, 1], [0, 0, 10, 0.9]]
        return torch.cat([self.gt(index).boxes, torch.tensor(inside)])


def test_edges_of_object_and_background():
    """[0.5, 1] is object, [0.1, 0.5) background, the rest is ignored; truths are windows."""
    objects, background = label_windows(Dataset(), RULE, num_classes=3)
    assert objects.box[:, 3].tolist() == [10, 5]
    assert objects.label.tolist() == [1, 1]
    np.testing.assert_allclose(background.box[:, 3], [4.9, 1])
    assert background.label.tolist() == [3, 3]
    assert set(objects.image) == set(background.image) == {0}


def table(count, label):
    return Windows(np.arange(count), np.zeros((count, 4), np.float32), np.full(count, label))


def test_batches_hold_a_quarter_of_objects():
    windows = draw(table(10, 0), table(100, 5), 6, (32, 96), np.random.default_rng(0))
    labels = windows.label.reshape(6, 128)
    assert (labels[:, :32] == 0).all()
    assert (labels[:, 32:] == 5).all()
    counts = np.bincount(windows.image[windows.label == 0], minlength=10)
    assert counts.max() - counts.min() <= 1


def test_rows_do_not_repeat_before_all_were_used():
    assert sorted(draw_rows(7, 7, np.random.default_rng(0))) == list(range(7))


def test_nothing_to_draw_from_is_told():
    with pytest.raises(UserError, match="no object window"):
        draw(table(0, 0), table(1, 1), 1, (1, 1), np.random.default_rng(0))
