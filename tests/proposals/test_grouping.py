"""Our selective search against naive readings of the papers, and against OpenCV."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import naive_search
import numpy as np
import pytest

from detection.errors import UserError
from detection.proposals import graph_segmentation, grouping
from detection.proposals.hierarchy import USES, Grouping, channels_last, derivatives, in_space
from detection.proposals.selective_search import (
    Regions,
    SelectiveSearch,
    first_of_equal,
    thresholds,
)
from detection.proposals.store import stored_regions


def picture(seed, channels=3, most=14):
    """Small, with few colours, so that many edges and similarities are equal; some are flat."""
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, most, 2)
    blocks = rng.integers(0, rng.choice([2, 4, 256]), (height, width, channels)) * 60 % 256
    block = int(rng.integers(1, 4))
    return blocks.repeat(block, 0).repeat(block, 1)[:height, :width].astype(np.uint8)


def segmented(image, k, min_size, sigma=0.8):
    smooth = channels_last(cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma))
    labels = graph_segmentation.segment(
        *graph_segmentation.sorted_edges(smooth), *image.shape[:2], k, min_size
    )
    return smooth, labels


@pytest.mark.parametrize("channels", [1, 3])
def test_segments_are_those_of_the_papers_algorithm(channels):
    for seed in range(150):
        image = picture(seed, channels)
        k, min_size = float(seed % 5 * 40 + 1), seed % 4 * 3 + 1
        smooth, (labels, count) = segmented(image, k, min_size)
        expected, number = naive_search.segment(smooth, k, min_size)
        assert count == number
        assert np.array_equal(labels, expected), seed


def test_segments_are_those_of_opencv_where_no_two_edges_weigh_the_same():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        image = cv2.GaussianBlur(rng.random((40, 50, 3), np.float32) * 255, (0, 0), 2.0)
        theirs = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, 30.0, 20)
        expected = theirs.processImage(image)
        smooth = cv2.GaussianBlur(image, (0, 0), 0.8)
        edges, weights = graph_segmentation.sorted_edges(smooth)
        straight = (edges & 3) < 2  # OpenCV joins a pixel to four neighbours, not to eight
        labels, count = graph_segmentation.segment(
            edges[straight], weights[straight], 40, 50, 30.0, 20
        )
        pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
        assert count == len(np.unique(expected)) == pairs.shape[1]  # one to one
        assert count > 3


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("channels", [1, 3])
def test_steps_and_boxes_are_those_of_the_papers_algorithm(use, channels):
    for seed in range(40):
        image = picture(seed, channels)
        _, (labels, count) = segmented(image, 30.0, 2)
        dx, dy = derivatives(image)
        segments = grouping.describe(labels, count, image, grouping.texture_codes(dx, dy))
        joined = grouping.group(segments, grouping.neighbour_pairs(labels, count), USES[use])
        expected, boxes = naive_search.group(labels, count, image, dx, dy, USES[use])
        assert np.array_equal(joined, expected), seed
        assert np.array_equal(segments[1], boxes)


def test_histograms_are_counts_of_pixels():
    image = picture(3)
    _, (labels, count) = segmented(image, 30.0, 2)
    dx, dy = derivatives(image)
    sizes, _, colours, textures = grouping.describe(
        labels, count, image, grouping.texture_codes(dx, dy)
    )
    for own in range(count):
        inside = labels == own
        assert sizes[own] == inside.sum()
        assert np.array_equal(colours[own], naive_search.colour_histogram(image, inside))
        assert np.array_equal(textures[own], naive_search.texture_histogram(dx, dy, inside))


def test_derivatives_are_gaussian():
    """A slope of one grey level a pixel has that derivative; opposite slopes, opposite ones."""
    ramp = np.tile(np.arange(40, dtype=np.uint8), (30, 1))[:, :, None]
    dx, dy = derivatives(ramp)
    assert np.allclose(dx[:, 6:-6], 1, atol=0.01)
    assert np.allclose(dy, 0, atol=1e-5)
    assert np.allclose(derivatives(ramp[:, ::-1])[0][:, 6:-6], -1, atol=0.01)


def test_colour_spaces():
    red = np.full((2, 2, 3), (200, 0, 0), np.uint8)
    assert in_space(red, "hsv")[0, 0].tolist() == [0, 255, 200]
    assert in_space(red, "h").shape == (2, 2, 1)
    assert in_space(red, "rgi")[0, 0].tolist() == [255, 0, 60]  # 0.299 of red is light
    assert in_space(red // 2, "rgi")[0, 0, :2].tolist() == [255, 0]  # shares do not see shadow
    black = np.zeros((2, 2, 3), np.uint8)
    assert in_space(black, "rgi")[0, 0].tolist() == [0, 0, 0]
    blue = np.full((1, 1, 3), (0, 0, 255), np.uint8)
    assert in_space(blue, "h")[0, 0, 0] == 120  # 240 of 360 degrees


@pytest.mark.parametrize(
    ("mode", "settings", "hierarchies", "ks"),
    [
        ("fast", "original", 8, [(50, 50), (100, 100)]),
        ("quality", "original", 80, [(50, 50), (100, 100), (150, 150), (300, 300)]),
        ("fast", "opencv", 12, [(150, 100), (300, 100), (450, 100)]),
    ],
)
def test_hierarchies_of_a_mode(mode, settings, hierarchies, ks):
    assert thresholds(mode, settings) == ks
    found = list(SelectiveSearch(mode=mode, settings=settings).grouping()(picture(1)))
    assert len(found) == hierarchies


def test_masks_are_the_pixels_of_the_boxes():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    image[10:25, 20:45] = (250, 30, 30)
    regions = SelectiveSearch(min_side_px=4).regions(image)
    assert len(regions) > 10
    for number, box in enumerate(regions.boxes):
        rows, columns = np.nonzero(regions.mask(number))
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert around == box.tolist()
    best = max(range(len(regions)), key=lambda n: iou_of(regions.mask(n), (10, 25, 20, 45)))
    assert iou_of(regions.mask(best), (10, 25, 20, 45)) > 0.8


def iou_of(mask, place):
    truth = np.zeros_like(mask)
    truth[place[0] : place[1], place[2] : place[3]] = True
    return (mask & truth).sum() / (mask | truth).sum()


def test_masks_of_a_shrunk_picture_have_the_pictures_size():
    image = np.full((200, 400, 3), 90, np.uint8)
    image[40:120, 100:240] = (250, 30, 30)
    regions = SelectiveSearch(max_side_px=200, min_side_px=5).regions(image)
    assert regions.hierarchies[0].labels.shape == (100, 200)
    assert max(iou_of(regions.mask(n), (40, 120, 100, 240)) for n in range(len(regions))) > 0.9
    assert regions.boxes.max() == 400


def test_nodes_of_a_tree_hold_their_segments():
    hierarchy = next(iter(SelectiveSearch().grouping()(picture(5))))
    root = 2 * len(hierarchy.joined)
    assert hierarchy.mask(root).all()
    assert sorted(hierarchy.segments_of(root)) == list(range(len(hierarchy.joined) + 1))
    for step, (i, j) in enumerate(hierarchy.joined):
        whole = hierarchy.mask(len(hierarchy.joined) + 1 + step)
        assert np.array_equal(whole, hierarchy.mask(i) | hierarchy.mask(j))
        assert not (hierarchy.mask(i) & hierarchy.mask(j)).any()


def test_any_number_of_threads_finds_the_same():
    pictures = [picture(seed, most=60) for seed in range(12)] * 2
    search = SelectiveSearch(min_side_px=2)
    alone = [search(p) for p in pictures]
    with ThreadPoolExecutor(4) as pool:
        for expected, found in zip(alone, pool.map(search, pictures), strict=True):
            assert np.array_equal(expected, found)


def test_large_regions_come_early():
    """Rank times a random number: the largest tenth stands in the first third, on average."""
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    boxes = SelectiveSearch(min_side_px=4)(cv2.GaussianBlur(image, (0, 0), 3))
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    places = np.argsort(-area)[: len(boxes) // 10]
    assert len(boxes) > 100
    assert places.mean() < len(boxes) / 3


def test_first_of_equal_rows():
    rows = np.random.default_rng(0).integers(0, 3, (200, 4)).astype(np.int32)
    seen, expected = set(), []
    for number, row in enumerate(map(tuple, rows)):
        if row not in seen:
            expected.append(number)
        seen.add(row)
    assert first_of_equal(rows).tolist() == expected


def test_pictures_are_shrunk_and_never_enlarged():
    image = np.zeros((30, 40, 3), np.uint8)
    assert SelectiveSearch(max_side_px=100).scaled(image).shape == (30, 40, 3)
    assert SelectiveSearch(max_side_px=20).scaled(image).shape == (15, 20, 3)
    assert SelectiveSearch(width_px=80).scaled(image).shape == (60, 80, 3)
    assert SelectiveSearch(width_px=80, max_side_px=40).scaled(image).shape == (30, 40, 3)


def test_one_segment_is_the_whole_picture():
    found = list(Grouping(["i"], [(1000.0, 10_000)], ["CTSF"], 0.8)(picture(1)))
    assert [h.joined.shape for h in found] == [(0, 2)]
    height, width = picture(1).shape[:2]
    assert found[0].boxes.tolist() == [[0, 0, width, height]]


def test_regions_are_kept_on_disk(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    regions = SelectiveSearch(min_side_px=4).regions(image)
    regions.save(tmp_path / "a.npz")
    again = Regions.load(tmp_path / "a.npz")
    assert np.array_equal(again.boxes, regions.boxes)
    assert len(again.hierarchies) == 8
    assert all(np.array_equal(again.mask(n), regions.mask(n)) for n in range(len(regions)))
    with np.load(tmp_path / "a.npz") as kept:
        assert sum(name.startswith("labels") for name in kept) == 4  # shared by two each
    (tmp_path / "a.npz").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"a\.npz is missing or damaged"):
        Regions.load(tmp_path / "a.npz")


@pytest.mark.parametrize("size", [(997, 1003), (3, 700), (701, 2), (333, 641)])
def test_boxes_of_shrunk_pictures_lie_inside(size):
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    boxes = SelectiveSearch(max_side_px=64, min_side_px=1)(image)
    assert boxes.min() >= 0
    assert (boxes[:, 2:] <= [size[1], size[0]]).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    assert [0, 0, size[1], size[0]] in boxes.tolist()


def test_a_picture_of_too_many_pixels_is_refused(monkeypatch):
    monkeypatch.setattr("detection.proposals.hierarchy.MAX_PIXELS", 100)
    with pytest.raises(UserError, match=r"10×10 pixels is too large .*max_side_px"):
        SelectiveSearch()(np.zeros((10, 10, 3), np.uint8))


def test_grey_pictures_are_pictures_of_three_equal_channels():
    grey = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    grey[10:30, 10:30] //= 4
    search = SelectiveSearch(min_side_px=4)
    expected = search(np.stack([grey] * 3, axis=2))
    assert len(expected) > 5
    assert np.array_equal(search(grey), expected)
    assert np.array_equal(search(grey[..., None]), expected)


def test_a_view_into_another_array_is_searched_as_its_copy():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    search = SelectiveSearch(min_side_px=4)
    for view in (image[::2, ::-1], image.transpose(1, 0, 2), image[:, :, ::-1]):
        assert np.array_equal(search(view), search(view.copy()))


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8),
     np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint16)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(image):
    with pytest.raises(UserError, match=r"takes \(H, W, 3\) RGB or \(H, W\) grey uint8 images"):
        SelectiveSearch()(image)


@pytest.mark.parametrize(
    "options",
    [{"engine": "x"}, {"mode": "slow"}, {"settings": "y"}, {"max_side_px": 0}, {"width_px": -1},
     {"max_boxes": 0}, {"sigma": 0.0}],
)  # fmt: skip
def test_options_that_cannot_be(options):
    name, value = next(iter(options.items()))
    with pytest.raises(UserError, match=f"{name}={value}"):
        SelectiveSearch(**options)


def test_opencv_has_no_masks():
    with pytest.raises(UserError, match="engine=opencv has no masks"):
        SelectiveSearch(engine="opencv").regions(picture(1))


def test_the_name_of_a_store_tells_the_revision():
    assert "revision=" in repr(SelectiveSearch())


MEMORY = """
import numpy as np
from pathlib import Path
from detection.proposals.selective_search import SelectiveSearch
image = np.random.default_rng(0).integers(0, 255, (1200, 1700, 3), np.uint8)
SelectiveSearch()(image[:90, :90])
def peak():  # not ru_maxrss, in which the parent's counts too
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
SelectiveSearch(max_side_px=None)(image)
print((peak() - before) / (image.size / 3))
"""


def test_memory_is_bounded_by_the_picture():
    """200 bytes a pixel at most, for noise of 2 megapixels, which has the most segments."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True
    )
    assert 20 < float(done.stdout) < 200


def test_a_damaged_file_of_regions_is_told(tmp_path):
    """Wherever bytes are wrong, or the file ends."""
    file, rng = tmp_path / "a.npz", np.random.default_rng(0)
    SelectiveSearch(min_side_px=4).regions(picture(5, most=60)).save(file)
    whole = file.read_bytes()
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        at = int(rng.integers(len(whole)))
        damaged[at : at + 8] = rng.bytes(len(damaged[at : at + 8]))
        file.write_bytes(damaged if rng.random() < 0.5 else whole[:at])
        try:
            Regions.load(file)
        except UserError as error:
            assert "is missing or damaged" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 40


def test_regions_of_a_file_are_searched_once(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), image)
    search = SelectiveSearch(min_side_px=4)
    first = stored_regions(tmp_path / "cache", tmp_path / "a.png", search)
    (kept,) = (tmp_path / "cache" / "regions").iterdir()
    before = kept.stat().st_mtime_ns
    again = stored_regions(tmp_path / "cache", tmp_path / "a.png", search)
    assert kept.stat().st_mtime_ns == before
    assert np.array_equal(again.boxes, first.boxes)
    assert np.array_equal(again.mask(3), first.mask(3))
    same = stored_regions(tmp_path / "cache", tmp_path / "b.png", search)
    assert np.array_equal(same.boxes, first.boxes)  # one content under two names
