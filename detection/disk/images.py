"""Images on disk → RGB arrays. Imports no torch: processes that look for proposals start fast."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from detection.disk.text import some
from detection.errors import UserError

log = logging.getLogger(__name__)
_told: set[int] = set()  # numbers of bits that a person knows of

MOST_PIXELS = 2 * 89_478_485  # of a picture, whoever decodes it: Pillow's own bound
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below it, and a phone's are near
CACHE_BYTES = 2**30  # of decoded images that a process keeps where nobody says otherwise
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
ORIENTATION = 0x0112  # EXIF's tag
# quarter turns against the clock, and whether it is mirrored then, for each value of the tag
TURNS = {
    2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True),
    8: (1, False),
}  # fmt: skip
JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
REDUCED = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
UNREADABLE = "image {} cannot be decoded ({}): replace the file, or take it off its list"
MISSING = "image {} is missing: restore it, or take it off its list"


def images_below(folder: Path) -> list[Path]:
    """All image files of a folder and of those in it, by their suffix, sorted."""
    found = (p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(p for p in found if p.is_file())


def read_image(path: Path) -> NDArray[np.uint8]:
    """The pixels of an image file, (H, W, 3) RGB, whatever its mode (grey, CMYK, palette, 16 bits).

    Pixels stay in their stored order (no EXIF turn), as annotations count them.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    with opened(path) as image:
        if image.mode.startswith(("I", "F")):
            return np.repeat(as_bytes(np.asarray(image), path)[:, :, None], 3, axis=2)
        return np.array(image.convert("RGB"))


def as_bytes(grey: NDArray[Any], path: Path) -> NDArray[np.uint8]:
    """Values of more than 8 bits in 8: those of 12 bits, as cameras of microscopes give, by 4.

    (Pillow would cut what is above 255.)

    Raises:
        UserError: values whose scale nobody knows: negative, of 32 bits, or no whole numbers.
    """
    most = grey.max(initial=0)
    if grey.dtype.kind == "f" or grey.min(initial=0) < 0 or most >= 2**16:
        raise UserError(
            f"image {path} has values from {grey.min(initial=0)} to {most} ({grey.dtype}): save it "
            "with 8 or 16 bits a pixel"
        )
    bits = 8 if most < 2**8 else 12 if most < 2**12 else 16
    if bits < 16 and bits not in _told:
        _told.add(bits)
        log.warning("image %s has 16 bits a pixel and values of %d: read as %d", path, bits, bits)
    return (grey.astype(np.uint32) >> (bits - 8)).astype(np.uint8)


def read_upright(path: Path) -> NDArray[np.uint8]:
    """The pixels of a photograph as viewers show it: turned as its EXIF says. See `read_image`.

    Of an animation the first picture. Annotations count pixels in their stored order, so training
    does not turn.
    """
    pixels = read_image(path)
    steps, mirror = turn_of(path)
    turned = np.rot90(pixels, steps)
    return np.ascontiguousarray(turned[:, ::-1] if mirror else turned)


def turn_of(path: Path) -> tuple[int, bool]:
    """How viewers turn a photograph: quarter turns against the clock; whether it is mirrored."""
    with opened(path) as image:
        if image.format == "PNG" and "exif" not in image.info:
            return 0, False  # Pillow would decode all of it, to look for EXIF behind the pixels
        return TURNS.get(image.getexif().get(ORIENTATION, 1), (0, False))


def stored_box(
    box: tuple[float, float, float, float], turn: tuple[int, bool], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box in pixels of a photograph as it is shown, in pixels as it is stored.

    Args:
        box: half-open xyxy.
        turn: see `turn_of`.
        size: width and height as stored.

    >>> stored_box((0, 0, 2, 1), (1, False), (10, 5))  # shown 5 wide, 10 high
    (9, 0, 10, 2)
    """
    x1, y1, x2, y2 = box
    steps, mirror = turn
    width, height = size
    shown_width = height if steps % 2 else width
    if mirror:
        x1, x2 = shown_width - x2, shown_width - x1
    if steps == 1:
        return width - y2, x1, width - y1, x2
    if steps == 2:
        return width - x2, height - y2, width - x1, height - y1
    if steps == 3:
        return y1, height - x2, y2, height - x1
    return x1, y1, x2, y2


def read_reduced(path: Path, side_px: int) -> NDArray[np.uint8]:
    """An image that will be scaled to a shorter side of `side_px`: as `read_image`, but faster.

    A JPEG whose shorter side is at least twice, four or eight times as long is decoded at a half,
    a quarter or an eighth of its size. OpenCV decodes whole JPEGs of three colours; Pillow all
    others, for OpenCV fills up what is missing of a truncated file without a word.

    A JPEG that lost bytes in its middle is decoded as far as it goes, as by every decoder.

    Raises:
        UserError: the file is missing, truncated or not an image.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(MISSING.format(path)) from None
    except OSError as error:
        raise UserError(UNREADABLE.format(path, error.strerror)) from None
    frame = jpeg_frame(content)
    if frame is None or frame[2] != 3 or not content.endswith(JPEG_END):
        return read_image(path)
    if frame[0] * frame[1] > MOST_PIXELS:  # as Pillow refuses it
        raise UserError(UNREADABLE.format(path, f"it claims {frame[1]}×{frame[0]} pixels"))
    reduce = max(r for r in REDUCED if r * side_px <= min(frame[:2]) or r == 1)
    flags = REDUCED[reduce] | cv2.IMREAD_IGNORE_ORIENTATION
    pixels: Any = cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    if pixels is None:
        return read_image(path)
    return pixels if reduce == 1 else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)


def jpeg_frame(content: bytes) -> tuple[int, int, int] | None:
    """Height, width and number of colours of a JPEG; None for what is no JPEG of 8 bits."""
    place = 2
    if not content.startswith(JPEG_START):
        return None
    while place + 10 <= len(content) and content[place] == 0xFF:
        marker, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame's header
            bits, rest = content[place + 4], content[place + 5 : place + 10]
            height, width = int.from_bytes(rest[:2], "big"), int.from_bytes(rest[2:4], "big")
            return (height, width, rest[4]) if bits == 8 else None
        place += 2 + length
    return None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file, from its header; see `read_image`."""
    with opened(path) as image:
        return image.size


def check_pictures(paths: Sequence[Path], threads: int = 8) -> None:
    """Check that the headers of pictures can be read, before hours of work on the others.

    Raises:
        UserError: some cannot; their number, and what is wrong with the first few.
    """

    def fault(path: Path) -> str:
        try:
            image_size(path)
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(threads) as pool:
        faults = [said for said in pool.map(fault, paths, chunksize=64) if said]
    if faults:
        more = f"{len(faults)} pictures cannot be read: " if len(faults) > 1 else ""
        raise UserError(f"{more}{some(faults, most=3)}")


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file, and one clear error for whatever is wrong with it."""
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise UserError(MISSING.format(path)) from None
    except (
        UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise UserError(UNREADABLE.format(path, error)) from None


class ImageCache:
    """Decoded images in memory, as many as a number of bytes allows; threads may share it.

    Those that come when it is full are decoded anew each time: an epoch that visits every image
    once would otherwise throw out each before it is used again.

    Args:
        max_bytes: of all that are kept.
        read: makes the pixels of a file.
    """

    def __init__(
        self,
        max_bytes: int = CACHE_BYTES,
        read: Callable[[Path], NDArray[np.uint8]] = read_image,
    ) -> None:
        self._bytes_left = max_bytes
        self._read = read
        self._kept: dict[Path, NDArray[np.uint8]] = {}
        self._lock = Lock()

    def __getitem__(self, path: Path) -> NDArray[np.uint8]:
        """The (H, W, 3) pixels of an image; not to be written to."""
        if path in self._kept:
            return self._kept[path]
        pixels = self._read(path)
        with self._lock:
            if path not in self._kept and pixels.nbytes <= self._bytes_left:
                self._bytes_left -= pixels.nbytes
                self._kept[path] = pixels
        return pixels
