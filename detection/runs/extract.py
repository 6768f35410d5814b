"""The options and the course of `detection.extract`; what needs torch is imported late."""

import hashlib
import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import MISSING

from detection.config.options import options_of, small_command
from detection.disk.images import images_below
from detection.errors import UserError

log = logging.getLogger(__name__)

USAGE = "python -m detection.extract ckpt=RUN images=FOLDER out=FILE.npz [OPTION=VALUE ...]"
BEFORE_RELU = ("fc6", "fc7")
CHOICES = {"view": ("centre", "whole"), "on_error": ("stop", "skip")}


@dataclass
class ExtractOptions:
    """The options of the command line.

    Attributes:
        ckpt: a classifier's run, or its model.ckpt.
        images: folder; images in folders below it count.
        out: file to write: .npz (an array an image, by its path) or .parquet (path, feature).
        layer: of the classifier; null: the last before the scores, or that which SVMs read.
        relu: after the layer's ReLU; false: fc6 or fc7 before it, as OverFeat's own tool.
        view: "centre", a crop of the network's inputs, or "whole", where the network allows it.
        dense: maps (C, h, w), of convolutions or, where the network can slide, of what stands
            after them; otherwise one vector an image, the mean of a convolution's map.
        side_px: shorter side that images are scaled to; null: as in training.
        batch_size: images that go through the network, and are saved, together.
        num_workers: threads that decode images.
        device: cpu or cuda; null: a GPU where there is one.
        on_error: of a bad image: "stop", or "skip", which lists it at the end.
    """

    ckpt: str = MISSING
    images: str = MISSING
    out: str = MISSING
    layer: str | None = None
    relu: bool = True
    view: str = "centre"
    dense: bool = False
    side_px: int | None = None
    batch_size: int = 64
    num_workers: int = 0
    device: str | None = None
    on_error: str = "stop"


def read_options(words: Sequence[str]) -> ExtractOptions:
    """The options of a command line.

    Raises:
        UserError: one is missing or of an unknown value.
    """
    options = options_of(words, ExtractOptions, USAGE, CHOICES)
    if options.batch_size < 1 or options.num_workers < 0:
        raise UserError("batch_size= must be at least 1, and num_workers= not negative")
    if not options.relu and options.layer not in BEFORE_RELU:
        raise UserError(f"relu=false is for layer={' or '.join(BEFORE_RELU)}")
    suffix = Path(options.out).suffix
    if suffix not in (".npz", ".parquet") or (options.dense and suffix != ".npz"):
        raise UserError(f"out={options.out}: must end in .npz, or in .parquet for vectors only")
    return options


def image_files(folder: Path) -> list[Path]:
    """All images of a folder, sorted."""
    if not folder.is_dir():
        raise UserError(f"images={folder}: there is no such folder")
    files = images_below(folder)
    if not files:
        raise UserError(f"images={folder} holds no image")
    return files


def extract(options: ExtractOptions) -> list[str]:
    """Write the features; returns the names of the images that could not be read.

    Raises:
        UserError: a mistake in the options, or a bad image where on_error=stop.
    """
    from detection.runs.features import FolderImages, join_parts, load_classifier, save_part
    from detection.runtime.progress import progress

    classifier, side_px = load_classifier(options.ckpt, options.device, options.side_px)
    layer = options.layer or classifier.default_layer
    classifier.check_layer(layer)
    files = image_files(Path(options.images).expanduser())
    images = FolderImages(files, Path(options.images).expanduser(), options.view, side_px)
    images.bind(classifier.features.backbone)
    out = Path(options.out).expanduser()
    parts = out.with_name(f".{out.name}.{work_key(options, images.names)}.parts")
    starts = range(0, len(files), options.batch_size)
    rows_of = {
        parts / f"{start:09d}.npz": range(start, min(start + options.batch_size, len(files)))
        for start in starts
    }
    missing = {part: rows for part, rows in rows_of.items() if not part.is_file()}
    with progress(f"{layer} of {options.images}", len(files)) as advance:
        advance(len(files) - sum(map(len, missing.values())))
        batches = images.read_ahead(list(missing.values()), options.num_workers)
        for (part, rows), (read, wrong) in zip(missing.items(), batches, strict=True):
            if wrong and options.on_error == "stop":
                raise UserError(f"{next(iter(wrong.values()))} (or on_error=skip)")
            for reason in wrong.values():
                log.warning("left out: %s", reason)
            save_part(part, classifier, read, layer, options.dense, options.relu)
            advance(len(rows))
    found = join_parts(parts, out)
    shutil.rmtree(parts)
    log.info("%d of %d images → %s", len(found), len(files), out)
    absent = sorted(set(images.names) - found)
    if absent:
        log.warning("not among them, for they cannot be read: %s", ", ".join(absent))
    return absent


def work_key(options: ExtractOptions, names: Sequence[str]) -> str:
    """Tells apart what must not go on with each other's parts."""
    from detection.disk.run_files import find_checkpoint

    file = find_checkpoint(options.ckpt)
    kept = replace(options, on_error="", device=None, num_workers=0)  # these may change
    return hashlib.sha256(f"{kept} {file.stat().st_mtime_ns} {names}".encode()).hexdigest()[:16]


def main() -> None:
    """The command."""
    small_command(USAGE, ExtractOptions, lambda words: extract(read_options(words)))
