"""Photographs of one's own in a folder a class: splits found or made, what is left out."""

import logging

import pytest
from fake_cls import write_image

from detection.data.folders.own_folders import OwnFolders
from detection.errors import UserError


def fill(root, **counts):
    """Some images for each class, `train__cat=3` in a folder of a split's."""
    for name, count in counts.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True)
        for n in range(count):
            write_image(folder / f"{n:02d}.jpg", n, (8, 8))
    return root


def test_a_folder_a_class_is_split_in_even_proportions(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = OwnFolders(fill(tmp_path, ant=10, bee=20, cat=2), test_share=0.2)
    train, test = list(found.entries("train")), list(found.entries("test"))
    assert [sum(label == n for _, label in test) for n in range(3)] == [2, 4, 1]
    assert [sum(label == n for _, label in train) for n in range(3)] == [8, 16, 1]
    assert not {path for path, _ in train} & {path for path, _ in test}
    assert found.splits == ("train", "test")
    assert "no folder of test images" in caplog.text
    other = OwnFolders(tmp_path, test_share=0.2, seed=1)
    assert list(other.entries("test")) != test


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Train", "Valid"), ("train", "test")),  # val is tested on, never validated on too
        (("training", "validation", "TEST"), ("train", "val", "test")),
        (("train", "test"), ("train", "test")),
    ],
)
def test_splits_are_found_whatever_they_are_called(tmp_path, names, splits):
    fill(tmp_path, **{f"{name}__{kind}": 2 for name in names for kind in ("ant", "bee")})
    found = OwnFolders(tmp_path)
    assert sorted(found.splits) == sorted(splits)
    assert found.class_names == ["ant", "bee"]
    last = list(found.entries("test"))
    assert [path for path, _ in last] == [f"{names[-1]}/{k}/0{n}.jpg" for k in ("ant", "bee")
                                          for n in (0, 1)]  # fmt: skip
    assert len({found.folders[split] for split in splits}) == len(splits)


def test_empty_folders_are_told_and_hidden_ones_passed_over(tmp_path, caplog):
    fill(tmp_path, ant=2, bee=2, empty=0)
    fill(tmp_path / ".cache", cat=2)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("no image")
    assert OwnFolders(tmp_path).class_names == ["ant", "bee"]
    assert "empty, notes" in caplog.text


def test_a_class_to_test_on_that_is_not_learnt_is_refused(tmp_path):
    fill(tmp_path, train__ant=1, train__bee=1, test__cow=1)
    with pytest.raises(UserError, match="cow is of a class that"):
        OwnFolders(tmp_path)


def test_one_class_is_no_classification(tmp_path):
    with pytest.raises(UserError, match="two classes"):
        OwnFolders(fill(tmp_path, ant=3))
