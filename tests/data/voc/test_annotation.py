"""The reader of VOC annotations."""

import pytest
from conftest import real_data
from hypothesis import given
from hypothesis import strategies as st

from detection.data.voc.annotation import VOCAnnotation, VOCObject, read_annotation
from detection.data.voc.writer import annotation_xml
from detection.errors import UserError

XML = """<annotation><filename>a.jpg</filename>
<size><width>50</width><height>40</height><depth>3</depth></size>
<object><name>person</name><pose>Left</pose><truncated>1</truncated><difficult/>
<occluded>0</occluded>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30.5</xmax><ymax>40</ymax></bndbox>
<part><name>head</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>
</object></annotation>"""


def write(path, text):
    file = path / "a.xml"
    file.write_text(text)
    return file


def test_reads_every_field(tmp_path):
    annotation = read_annotation(write(tmp_path, XML))
    (thing,) = annotation.objects
    assert (annotation.width, annotation.height, annotation.filename) == (50, 40, "a.jpg")
    assert thing.box == (0, 1, 30.5, 40)  # 1-based inclusive → half-open
    assert (thing.truncated, thing.difficult, thing.occluded, thing.pose) == (
        True,
        False,
        False,
        "Left",
    )
    assert thing.parts[0].name == "head"
    assert thing.parts[0].box == (4, 4, 9, 9)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmin>1</xmin>", "", r"object 1 \(person\) <xmin> is missing"),
        ("<xmin>1</xmin>", "<xmin>nan</xmin>", "'nan', not a number"),
        ("<name>person</name>", "", "object 1 has no <name>"),
        ("</annotation>", "", "not well-formed XML"),
    ],
)
def test_names_file_and_field(tmp_path, old, new, message):
    file = write(tmp_path, XML.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as error:
        read_annotation(file)
    assert str(file) in str(error.value)


def test_box_is_needed(tmp_path):
    text = XML.replace("<bndbox><xmin>1", "<box><xmin>1").replace(
        "40</ymax></bndbox>", "40</ymax></box>"
    )
    with pytest.raises(UserError, match=r"object 1 \(person\) has no <bndbox>"):
        read_annotation(write(tmp_path, text))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"gone\.xml is missing"):
        read_annotation(tmp_path / "gone.xml")


corner = st.integers(0, 500)


@given(
    x=corner,
    y=corner,
    w=st.integers(1, 300),
    h=st.integers(1, 300),
    flags=st.tuples(*[st.booleans()] * 3),
)
def test_writing_and_reading_again(tmp_path_factory, x, y, w, h, flags):
    thing = VOCObject("cat", (x, y, x + w, y + h), *flags)
    path = tmp_path_factory.getbasetemp() / "round.xml"
    path.write_bytes(annotation_xml(VOCAnnotation(path, "round.jpg", 900, 900, [thing])))
    assert read_annotation(path).objects == [thing]


def test_real_voc_2012():
    """SOURCE.txt counts 273 boxes, 38 of them difficult, 137 truncated, 20 classes."""
    folder = real_data("voc2012_sub100") / "VOCdevkit" / "VOC2012" / "Annotations"
    objects = [o for path in folder.glob("*.xml") for o in read_annotation(path).objects]
    assert len(objects) == 273
    assert sum(o.difficult for o in objects) == 38
    assert sum(o.truncated for o in objects) == 137
    assert len({o.name for o in objects}) == 20


def test_labelme_floats_and_empty_flags():
    folder = real_data("labelme_voc_seg3") / "Annotations"
    objects = [o for path in folder.glob("*.xml") for o in read_annotation(path).objects]
    assert len(objects) == 9
    assert any(value != int(value) for o in objects for value in o.box)
    assert not any(o.difficult for o in objects)
