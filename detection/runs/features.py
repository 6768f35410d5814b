"""The slow part of `detection.extract`: everything that needs torch."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from detection.backbones.backbone import Backbone
from detection.classification.classifier import Classifier
from detection.classification.views import CropViews, Pixels, WholeViews
from detection.disk.checkpoints import read_checkpoint, restore_model
from detection.disk.files import replacing
from detection.disk.images import read_reduced
from detection.errors import UserError
from detection.overfeat.dense import dense_activations
from detection.runs.predictor import usable_device

AFTER_POOLING = ("pool5", "fc6", "fc7", "logits")

Features = dict[str, NDArray[np.float32]]


def load_classifier(ckpt: str, device: str | None, side_px: int | None) -> tuple[Classifier, int]:
    """A trained classifier on a device, and the shorter side that its images are scaled to."""
    model = restore_model(read_checkpoint(ckpt))
    if "classification" not in model.tasks:
        raise UserError(f"ckpt={ckpt} is no classifier, from which features of images come")
    classifier: Classifier = model
    classifier.to(usable_device(device)).eval()
    return classifier, side_px or classifier.side_px


class FolderImages:
    """Images of a folder, each as one view.

    Args:
        files: of the images.
        root: folder below which they are named.
        view: "centre" or "whole".
        side_px: shorter side that they are scaled to.
    """

    def __init__(self, files: Sequence[Path], root: Path, view: str, side_px: int) -> None:
        self.files, self.side_px = list(files), side_px
        self.names = [file.relative_to(root).as_posix() for file in files]
        self.view = CropViews() if view == "centre" else WholeViews()

    def bind(self, backbone: Backbone) -> None:
        """Learn the size of the network's inputs."""
        self.view.bind(self.side_px, backbone)

    def read(self, rows: Sequence[int], threads: int) -> tuple[dict[str, Pixels], dict[str, str]]:
        """Views of some images by name, and what was wrong with the others."""
        made = Parallel(n_jobs=max(1, threads), prefer="threads")(
            delayed(self.one)(self.files[row]) for row in rows
        )
        names = [self.names[row] for row in rows]
        views = {n: v for n, v in zip(names, made, strict=True) if not isinstance(v, str)}
        wrong = {n: v for n, v in zip(names, made, strict=True) if isinstance(v, str)}
        return views, wrong

    def read_ahead(
        self, batches: Sequence[Sequence[int]], threads: int
    ) -> Iterator[tuple[dict[str, Pixels], dict[str, str]]]:
        """What `read` gives for each batch; the next is decoded while one is worked on."""
        with ThreadPoolExecutor(1) as reader:
            jobs: deque[Future[tuple[dict[str, Pixels], dict[str, str]]]] = deque()
            for rows in batches:
                jobs.append(reader.submit(self.read, rows, threads))
                if len(jobs) == 2:
                    yield jobs.popleft().result()
            while jobs:
                yield jobs.popleft().result()

    def one(self, file: Path) -> Pixels | str:
        """The view of an image, or what is wrong with it."""
        try:
            return self.view(read_reduced(file, self.side_px))[0]
        except UserError as error:
            return str(error)


def save_part(
    file: Path,
    classifier: Classifier,
    views: dict[str, Pixels],
    layer: str,
    dense: bool,
    relu: bool = True,
) -> None:
    """Write the features of some images; views of one size go through the network together."""
    names_of: dict[tuple[int, ...], list[str]] = {}
    for name, pixels in views.items():
        names_of.setdefault(pixels.shape, []).append(name)
    device = classifier.output.weight.device
    found: Features = {}
    for names in names_of.values():
        batch = np.stack([views[name] for name in names]).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
        if dense and layer in AFTER_POOLING:
            features = dense_activations(classifier, images, layer, relu)
        else:
            features = classifier.activations(images, layer, relu)
        if features.dim() == 4 and not dense:
            features = features.mean(dim=(2, 3))
        found |= dict(zip(names, features.cpu().numpy(), strict=True))
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **{name: found[name] for name in views})  # type: ignore[arg-type]


def join_parts(parts: Path, out: Path) -> set[str]:
    """Write all parts as one file; the names in it."""
    files = sorted(parts.glob("*.npz"))
    with replacing(out) as temporary:
        return (join_npz if out.suffix == ".npz" else join_parquet)(files, temporary)


def join_npz(parts: Sequence[Path], out: Path) -> set[str]:
    """Both are archives of an .npy an image: its bytes are handed over as they are."""
    names = set()
    with ZipFile(out, "w") as joined:
        for part in parts:
            with ZipFile(part) as archive:
                for member in archive.namelist():
                    joined.writestr(member, archive.read(member))
                    names.add(member.removesuffix(".npy"))
    return names


def join_parquet(parts: Sequence[Path], out: Path) -> set[str]:
    """Columns `path` and `feature`, a group of rows for each part."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "out=….parquet needs pyarrow: pip install 'detection[parquet]', or write .npz"
        ) from None
    names = set()
    schema = pa.schema({"path": pa.string(), "feature": pa.list_(pa.float32())})
    with pq.ParquetWriter(out, schema) as writer:
        for part in parts:
            with np.load(part) as content:
                rows = {"path": content.files, "feature": [content[n].ravel() for n in content]}
            writer.write_table(pa.table(rows, schema))
            names |= set(rows["path"])
    return names
