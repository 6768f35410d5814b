"""What a folder is taken for."""

import pytest

from detection.data.folders.recognise import suggestion
from detection.data.voc.folder import VOCFolder
from detection.errors import UserError


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["VOCdevkit/VOC2007/JPEGImages/a.jpg", "VOCdevkit/VOC2007/Annotations/a.xml"],
         "data.root="),
        (["train/_annotations.coco.json", "train/a.jpg"], "data=coco"),
        (["annotations/instances_val2017.json", "val2017/a.jpg"], "data=coco"),
        (["data.yaml", "train/images/a.jpg"], "data=yolo"),
        (["images/a.jpg", "labels/a.txt"], "data=yolo"),
        (["images/train/a.jpg", "labels/train/a.txt"], "data=yolo"),
        (["a.jpg", "a.xml"], "move them"),
        (["cats/a.jpg", "dogs/b.jpg"], "data=image_folder"),
        (["notes.txt"], ""),
    ],
)  # fmt: skip
def test_what_most_people_hold(tmp_path, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    found = suggestion(tmp_path)
    assert said in found
    assert bool(said) == bool(found)
    with pytest.raises(UserError, match="JPEGImages is missing") as told:
        VOCFolder(tmp_path)
    assert found in str(told.value)
