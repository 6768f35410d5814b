"""Crops with windows, from which a network without weights learns."""

import albumentations as A
import numpy as np
import pytest
import torch

from detection.boxes import box_iou
from detection.data.detection import DetectionSplit
from detection.data.object_crops import ObjectCrops
from detection.data.voc.annotation import VOCObject
from detection.data.voc.folder import VOCFolder
from detection.errors import UserError


class WithProposals(DetectionSplit):
    """A grid of proposals in every image."""

    def proposals(self, index):
        x, y = torch.meshgrid(torch.arange(0, 50, 5.0), torch.arange(0, 30, 5.0), indexing="ij")
        corner = torch.stack([x.flatten(), y.flatten()], dim=1)
        return torch.cat([corner, corner + 10], dim=1)


@pytest.fixture
def dataset(fake_voc):
    fake_voc.add("a", [VOCObject("cat", (5, 5, 25, 30)), VOCObject("dog", (30, 5, 50, 25))])
    fake_voc.add("b", [])
    return WithProposals(VOCFolder(fake_voc.root), ["a", "b"], ["cat", "dog"])


def moved_objects(dataset, crops, seed):
    """The ground truth of the image that a seed crops, in the crop's pixels."""
    seen = []

    class Watching(type(crops)):
        def choose(self, image, matrix, size_px, generator):
            seen.append((image, matrix))
            return super().choose(image, matrix, size_px, generator)

    watching = Watching(dataset, 2, windows=16, scale_px=40, augmentation=None)
    watching.draw(64, np.random.default_rng(seed))
    ((image, matrix),) = seen
    gt = dataset.gt(image)
    moved = gt.boxes.double() * matrix[0, 0] + torch.from_numpy(np.tile(matrix[:, 2], 2))
    return gt._replace(boxes=moved.float())


def test_labels_are_those_of_the_overlap(dataset):
    crops = ObjectCrops(dataset, 2, windows=16, scale_px=40, augmentation=None)
    seen, checked = set(), 0
    for n in range(30):
        crop = crops.draw(64, np.random.default_rng(n))
        assert crop.pixels.shape == (64, 64, 3)
        assert len(crop.boxes) == len(crop.labels) <= 16
        assert (crop.boxes >= 0).all()
        assert (crop.boxes <= 64).all()
        seen |= set(crop.labels.tolist())
        # the crop's objects lie where its matrix takes them; a window cut by the edge loses up to
        # a quarter, so that its overlap there may differ from that in the image
        gt = moved_objects(dataset, crops, n)
        whole = ((crop.boxes > 0) & (crop.boxes < 64)).all(axis=1)
        if len(gt.boxes):
            iou, match = box_iou(torch.from_numpy(crop.boxes[whole]), gt.boxes).max(dim=1)
            for label, overlap, nearest in zip(crop.labels[whole], iou, match, strict=True):
                if label == 2:
                    assert overlap < 0.5 + 1e-4
                else:
                    assert overlap >= 0.5 - 1e-4
                    assert label == gt.labels[nearest]
                checked += 1
    assert checked > 50
    assert seen == {0, 1, 2}


def test_the_same_generator_gives_the_same_crop(dataset):
    flip = A.Compose(
        [A.HorizontalFlip(p=0.5), A.ColorJitter(p=0.8)],
        bbox_params=A.BboxParams(format="pascal_voc", label_fields=["labels"]),
    )
    crops = ObjectCrops(dataset, 2, windows=8, scale_px=40, augmentation=flip)
    first, second = (crops.draw(48, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(first.boxes, second.boxes)
    assert np.array_equal(first.labels, second.labels)


def test_no_object_is_told(fake_voc):
    fake_voc.add("b", [])
    dataset = WithProposals(VOCFolder(fake_voc.root), ["b"], ["cat"])
    with pytest.raises(UserError, match="no object to crop"):
        ObjectCrops(dataset, 1, 8, 40, None)
