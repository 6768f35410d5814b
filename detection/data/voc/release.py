"""A release of PASCAL VOC: it is there, or it is downloaded."""

import logging
from pathlib import Path
from urllib.error import URLError

from torchvision.datasets import VOCDetection

from detection.data.sources import existing_folder
from detection.errors import UserError

log = logging.getLogger(__name__)


def voc_release(root: str | None, year: str, download_to: str, image_sets: list[str]) -> Path:
    """The folder of one year of PASCAL VOC, downloaded (with checksum) unless `root` is given.

    Args:
        root: a folder that holds `VOCdevkit/VOC<year>`, `VOC<year>` or `JPEGImages`; or None.
        year: "2007", "2010" or "2012".
        download_to: where the archives go when `root` is None.
        image_sets: what to download, such as ["trainval", "test"].

    Raises:
        UserError: the folder is not there, or the download failed.
    """
    if root is not None:
        return find_release(existing_folder(root), year)
    target = Path(download_to).expanduser()
    try:
        for image_set in image_sets:
            if not is_complete(target, year, image_set):
                log.info("downloading VOC %s %s to %s", year, image_set, target)
                target.mkdir(parents=True, exist_ok=True)
                VOCDetection(str(target), year=year, image_set=image_set, download=True)
    except (URLError, OSError, RuntimeError) as error:
        raise UserError(
            f"PASCAL VOC {year} could not be downloaded ({error}). Fetch the VOC{year} archives on "
            "a machine that is online, unpack them, and give the folder with data.root=FOLDER"
        ) from error
    return find_release(target, year)


def is_complete(root: Path, year: str, image_set: str) -> bool:
    """Whether a list of a release and its last image are on disk."""
    folder = root / "VOCdevkit" / f"VOC{year}"
    names = folder / "ImageSets" / "Main" / f"{image_set}.txt"
    if not names.is_file():
        return False
    ids = names.read_text().split()
    return bool(ids) and (folder / "JPEGImages" / f"{ids[-1]}.jpg").is_file()


def find_release(root: Path, year: str) -> Path:
    """The folder below `root` that holds JPEGImages."""
    places = [root, root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}"]
    for place in places:
        if (place / "JPEGImages").is_dir():
            return place
    looked = ", ".join(str(p / "JPEGImages") for p in places)
    raise UserError(f"data.root={root} holds no VOC {year}; looked for {looked}")
