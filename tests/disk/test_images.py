"""Images of every kind are read, and damaged ones refused."""

import numpy as np
import pytest
from fake_cls import write_image
from PIL import Image

from detection.disk.images import ImageCache, image_size, read_image, read_reduced, turn_of
from detection.errors import UserError


def test_folders_and_bombs_are_no_images(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").mkdir()
    write_image(tmp_path / "b.jpg", 0, (40, 50))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(UserError, match=f"{name} cannot be decoded"):
            read_image(tmp_path / name)
    with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
        read_reduced(tmp_path / "a.jpg", 20)


def test_a_header_that_claims_too_much_is_refused_however_it_is_read(tmp_path):
    """65,500×65,500 in a few bytes: no decoder starts on it, and none decodes a part of it."""
    write_image(tmp_path / "a.jpg", 0, (40, 50))
    content = bytearray((tmp_path / "a.jpg").read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (65_500).to_bytes(2, "big") * 2
    (tmp_path / "a.jpg").write_bytes(content)
    for read in (read_image, lambda path: read_reduced(path, 20), image_size):
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
            read(tmp_path / "a.jpg")


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "I;16", "RGBA"])
def test_images_of_every_mode_are_read(tmp_path, mode):
    grey = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (40, 1))
    if mode == "I;16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert("L" if mode == "P" else "RGB").convert(mode)
    path = tmp_path / ("a.jpg" if mode in ("L", "CMYK") else "a.png")
    image.save(path)
    for pixels in (read_image(path), read_reduced(path, 30)):
        assert pixels.shape == (40, 50, 3)
        assert abs(pixels[:, :, 0].astype(int) - grey).max() <= 8


def test_large_jpegs_are_decoded_small_and_exif_is_left_alone(tmp_path):
    write_image(tmp_path / "a.jpg", 0, (400, 640))
    assert read_reduced(tmp_path / "a.jpg", 100).shape == (100, 160, 3)
    assert read_reduced(tmp_path / "a.jpg", 150).shape == (200, 320, 3)
    assert read_reduced(tmp_path / "a.jpg", 256).shape == (400, 640, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned
    Image.open(tmp_path / "a.jpg").save(tmp_path / "b.jpg", exif=exif)
    for read in (read_image(tmp_path / "b.jpg"), read_reduced(tmp_path / "b.jpg", 256)):
        assert read.shape == (400, 640, 3)


def test_both_readers_give_the_same_pixels(tmp_path):
    generator = np.random.default_rng(0)
    colours = Image.fromarray(generator.integers(0, 255, (12, 16, 3), np.uint8)).resize((160, 120))
    for options in ({"quality": 90}, {"quality": 75, "progressive": True}):
        colours.save(tmp_path / "a.jpg", **options)
        whole, fast = read_image(tmp_path / "a.jpg"), read_reduced(tmp_path / "a.jpg", 100)
        assert abs(whole.astype(int) - fast).max() <= 2


def test_a_png_is_not_decoded_to_look_for_its_turn(tmp_path):
    """Pillow looks for EXIF behind the pixels."""
    Image.effect_noise((60, 40), 50).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:500])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((60, 40), 50).save(tmp_path / "b.png", exif=exif)
    assert turn_of(tmp_path / "a.png") == turn_of(tmp_path / "cut.png") == (0, False)
    assert turn_of(tmp_path / "b.png") == (3, False)


def test_truncated_images_are_never_filled_up(tmp_path):
    write_image(tmp_path / "a.jpg", 0, (100, 120))
    whole = (tmp_path / "a.jpg").read_bytes()
    for kept in (len(whole) - 5, len(whole) // 2, 100, 3):
        (tmp_path / "a.jpg").write_bytes(whole[:kept])
        with pytest.raises(UserError, match=r"a\.jpg cannot be decoded"):
            read_reduced(tmp_path / "a.jpg", 50)
    with pytest.raises(UserError, match=r"b\.jpg is missing"):
        read_reduced(tmp_path / "b.jpg", 50)


def test_the_cache_is_bounded_in_bytes(tmp_path):
    """What does not fit is decoded anew; nothing is thrown out for it."""
    read = []

    def pixels(path):
        read.append(path.name)
        return np.zeros((10, 10, 3), np.uint8)

    cache = ImageCache(max_bytes=700, read=pixels)
    for name in ("a", "b", "c", "a", "b", "c"):
        assert cache[tmp_path / name].shape == (10, 10, 3)
    assert read == ["a", "b", "c", "c"]
