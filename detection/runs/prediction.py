"""The course of `detection.predict`: images → pictures with boxes, tables, a page."""

import glob
import hashlib
import json
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from detection.data.samples import Sample
from detection.disk.files import write_text
from detection.disk.images import IMAGE_SUFFIXES, images_below, read_upright
from detection.disk.run_files import find_checkpoint
from detection.errors import UserError
from detection.report.drawing import draw_detections, drawable, fitted
from detection.report.page import write_jpeg
from detection.report.predictions import Record, picture_of, write_predictions
from detection.runs.predict import PredictOptions
from detection.runs.predictor import MOST, Found, Predictor
from detection.runtime.progress import progress

log = logging.getLogger(__name__)

RECORDS = ".records.jsonl"  # a line an image that is done
THUMBNAIL_PX = 320
PICTURE_PX = 1600

Looked = tuple[str, NDArray[np.uint8] | None, Sample | str]


def predict(options: PredictOptions) -> list[str]:
    """Write pictures, tables and the page; returns the names of images that could not be read.

    Raises:
        UserError: a mistake in the options, or a bad image where on_error=stop.
    """
    out = Path(options.out).expanduser()
    files = chosen_images(options.images, out)
    predictor = Predictor(
        options.ckpt if isinstance(options.ckpt, str) else list(options.ckpt),
        threshold=options.threshold, device=options.device, precision=options.precision,
        svd_rank=options.svd_rank,
    )  # fmt: skip
    with claimed(out, work_key(options)) as done, (out / RECORDS).open("a") as records:
        todo = {name: file for name, file in files.items() if name not in done}
        if len(todo) < len(files):
            log.info("%d of %d images are done already", len(files) - len(todo), len(files))
        with progress(f"predicting {options.images}", len(files)) as advance:
            advance(len(files) - len(todo))
            for made in predicted(predictor, todo, out, options):
                for record in made:
                    done[record.name] = record
                    records.write(json.dumps(asdict(record)) + "\n")
                records.flush()
                advance(len(made))
        wanted = [done[name] for name in files]
        write_predictions(
            out, wanted, predictor.class_names, predictor.task, said_of(predictor, options)
        )
    wrong = [record for record in wanted if record.error]
    for record in wrong:
        log.warning("left out: %s", record.error)
    log.info("%d images → %s", len(wanted) - len(wrong), out / "index.html")
    return [record.name for record in wrong]


def said_of(predictor: Predictor, options: PredictOptions) -> str:
    """What the page says of how the predictions came about."""
    text = f"By {options.ckpt}."
    if predictor.task == "classification":
        return f"{text} The best guesses."
    if predictor.task == "localization" and options.threshold is None:
        return f"{text} The first guess, with its box."
    least = zip(predictor.class_names, predictor.thresholds.tolist(), strict=True)
    if options.threshold is not None:
        return f"{text} Shown from a score of {options.threshold:g} on (threshold=)."
    if not predictor.is_validated:
        return (
            f"{text} Shown from a score of {MOST:g} on: the model was never validated (threshold=)."
        )
    listed = ", ".join(f"{name} {score:.2f}" for name, score in least)
    return f"{text} Shown from each class's score of best F1 on validation images: {listed}."


def work_key(options: PredictOptions) -> str:
    """Tells apart what must not go on with each other's records."""
    names = [options.ckpt] if isinstance(options.ckpt, str) else list(options.ckpt)
    times = [find_checkpoint(name).stat().st_mtime_ns for name in names]
    # these may change
    kept = replace(options, images="", out="", on_error="", device=None, num_workers=0,
                   batch_size=None)  # fmt: skip
    return hashlib.sha256(f"{kept} {times}".encode()).hexdigest()[:16]


def predicted(
    predictor: Predictor, files: dict[str, Path], out: Path, options: PredictOptions
) -> Iterator[list[Record]]:
    """Records of some images, batch by batch; the next are decoded while one is predicted.

    At most a batch and a few images are in memory, whatever their number.
    """
    size = options.batch_size or predictor.model.transform.batch_size
    jobs: deque[Future[Looked]] = deque()
    todo = iter(files.items())
    with ThreadPoolExecutor(options.num_workers) as pool:
        try:
            first = next(todo, None)
            if first is None:
                return
            # what a search compiles once is there before any thread starts
            ready = [looked_at(predictor, *first)]
            while ready:
                yield records_of(predictor, ready, out, options.on_error)
                for name, file in todo:
                    jobs.append(pool.submit(looked_at, predictor, name, file))
                    if len(jobs) >= size + options.num_workers:
                        break
                ready = [jobs.popleft().result() for _ in range(min(size, len(jobs)))]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def looked_at(predictor: Predictor, name: str, file: Path) -> Looked:
    """An image, and what the model takes of it, or what is wrong with it."""
    try:
        pixels = read_upright(file)
        return name, pixels, predictor.sample(pixels, name)
    except UserError as error:
        return name, None, str(error)


def records_of(
    predictor: Predictor, ready: Sequence[Looked], out: Path, on_error: str
) -> list[Record]:
    """Predict for some images, draw them, and say what was found."""
    samples = [sample for _, _, sample in ready if not isinstance(sample, str)]
    found = iter(predictor.predict(samples) if samples else [])
    records = []
    for name, pixels, sample in ready:
        if isinstance(sample, str) or pixels is None:
            if on_error == "stop":
                raise UserError(f"{sample} (or on_error=skip)")
            records.append(Record(name, error=str(sample)))
            continue
        mine = next(found)
        draw(out, name, pixels, mine, predictor.class_names)
        rows = tuple((f.name, f.score, *(f.box or ())) for f in mine)
        records.append(Record(name, pixels.shape[1], pixels.shape[0], rows))
    return records


def draw(
    out: Path, name: str, pixels: NDArray[np.uint8], found: Sequence[Found],
    class_names: Sequence[str],
) -> None:  # fmt: skip
    """Write an image's picture with its boxes, and its thumbnail."""
    shown = fitted(pixels, PICTURE_PX)
    boxes = np.array([f.box for f in found if f.box], np.float32).reshape(-1, 4)
    if len(boxes) or not found:
        boxes = boxes * (shown.shape[1] / pixels.shape[1])
        labels = [class_names.index(f.name) for f in found]
        pairs = zip(found, labels, strict=True)
        captions = [f"{drawable(f.name, label)} {f.score:.2f}" for f, label in pairs]
        shown = draw_detections(shown, boxes, labels, captions)
        write_jpeg(out / "pictures" / picture_of(name), shown)
    write_jpeg(out / "thumbnails" / picture_of(name), fitted(shown, THUMBNAIL_PX))


def chosen_images(images: str, out: Path) -> dict[str, Path]:
    """The image files that are asked for, by name; nothing of the output's own.

    Raises:
        UserError: there are none.
    """
    path = Path(images).expanduser()
    if path.is_dir():
        root, found = path, images_below(path)
    elif path.is_file():
        root, found = path.parent, [path]
    else:
        matched = glob.glob(str(path), recursive=True)
        found = [Path(m) for m in matched if Path(m).suffix.lower() in IMAGE_SUFFIXES]
        root = Path(os.path.commonpath([p.parent for p in found])) if found else path
    inside = out.resolve()
    files = sorted(p for p in found if p.is_file() and inside not in p.resolve().parents)
    if found and not files:
        raise UserError(f"out={out} holds the images themselves: choose another folder")
    if not files:
        raise UserError(
            f"images={images}: there is no image there ({' '.join(IMAGE_SUFFIXES)}): give a "
            "folder, a file, or a pattern in quotes such as 'photos/*.jpg'"
        )
    return {p.relative_to(root).as_posix(): p for p in files}


@contextmanager
def claimed(out: Path, key: str) -> Iterator[dict[str, Record]]:
    """The folder of the output, for one process, with what an earlier one has done in it.

    Raises:
        UserError: another process works there, or it holds something else.
    """
    records = out / RECORDS
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not records.is_file())):
        raise UserError(f"out={out} holds other things: choose an empty or a new folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            lines = records.read_text().splitlines() if records.is_file() else [key]
            if lines[:1] != [key]:
                raise UserError(
                    f"out={out} holds predictions of another model, threshold or svd_rank: choose "
                    "another folder, or delete it"
                )
            read = [(line, record) for line in lines[1:] if (record := parsed(line))]
            good = [(line, record) for line, record in read if not record.error]
            # without what was not written whole, to which the next would be added
            write_text(records, "\n".join([key, *(line for line, _ in good)]) + "\n")
            yield {record.name: record for _, record in good}
    except Timeout:
        raise UserError(f"out={out} is in use by another process: choose another folder") from None


def parsed(line: str) -> Record | None:
    """A line of the records; None if it was not written whole."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return None
    return Record(**{**values, "found": tuple(map(tuple, values["found"]))})
