"""The slow part of `detection.extract`: everything that needs torch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray

from detection.backbones.backbone import Backbone
from detection.checkpoints import read_checkpoint, restore_detector
from detection.classification.classifier import Classifier
from detection.classification.views import CropViews, Pixels, WholeViews
from detection.errors import UserError
from detection.files import replacing
from detection.images import read_reduced
from detection.overfeat.dense import dense_activations

BEHIND_POOLING = ("pool5", "fc6", "fc7", "logits")

Features = dict[str, NDArray[np.float32]]


def load_classifier(ckpt: str, device: str | None, side_px: int | None) -> tuple[Classifier, int]:
    """A trained classifier on a device, and the shorter side that its images are scaled to."""
    content = read_checkpoint(Path(ckpt))
    classifier = restore_detector(content)
    if not isinstance(classifier, Classifier):
        raise UserError(f"ckpt={ckpt} is a detector: features of images come from a classifier")
    classifier.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
    return classifier, side_px or int(content["config"]["data"]["side_px"])


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
        self.view: CropViews | WholeViews = WholeViews(resize_px=None, flip=False)
        if view == "centre":
            self.view = CropViews(resize_px=None, crop_px=None, places=["centre"], flip=False)

    def fit(self, backbone: Backbone) -> None:
        """Learn the size of the network's inputs."""
        self.view.fit(self.side_px, backbone)

    def read(self, rows: Sequence[int], threads: int) -> tuple[dict[str, Pixels], dict[str, str]]:
        """Views of some images by name, and what was wrong with the others."""
        made = Parallel(n_jobs=max(1, threads), prefer="threads")(
            delayed(self.one)(self.files[row]) for row in rows
        )
        names = [self.names[row] for row in rows]
        views = {n: v for n, v in zip(names, made, strict=True) if not isinstance(v, str)}
        wrong = {n: v for n, v in zip(names, made, strict=True) if isinstance(v, str)}
        return views, wrong

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
    device = classifier.classifier.weight.device
    found: Features = {}
    for names in names_of.values():
        batch = np.stack([views[name] for name in names]).transpose(0, 3, 1, 2)
        images = torch.from_numpy(np.ascontiguousarray(batch)).to(device)
        if dense and layer in BEHIND_POOLING:
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
    found: Features = {}
    for part in sorted(parts.glob("*.npz")):
        with np.load(part) as content:
            found |= {name: content[name] for name in content.files}
    with replacing(out) as temporary, temporary.open("wb") as stream:
        if out.suffix == ".npz":
            np.savez(stream, **found)  # type: ignore[arg-type]
        else:
            write_parquet(found, stream)
    return set(found)


def write_parquet(found: Features, stream: object) -> None:
    """Columns `path` and `feature`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(
            "out=….parquet needs pyarrow: pip install 'detection[parquet]', or write .npz"
        ) from None
    values = pa.array([f.ravel() for f in found.values()], type=pa.list_(pa.float32()))
    pq.write_table(pa.table({"path": list(found), "feature": values}), stream)
