"""OverFeat's dense classification: offset pooling, a sliding classifier (OverFeat, section 3.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from detection.backbones.backbone import Backbone
from detection.backbones.sliding import OffsetPooling, fitting_sides, interleaved
from detection.classification.classifier import CLASSIFIER, Classifier
from detection.classification.views import Pixels, mirrored, resized
from detection.errors import UserError


def dense_logits(classifier: Classifier, images: Tensor, fine: bool) -> Tensor:
    """Logits of the classifier slid over whole images, (B, C, h, w).

    The convolutions are computed once. Their map is pooled at every offset (fine) or at none
    (coarse), the fully connected layers slide over each pooled map as convolutions, and the
    results of the offsets are interleaved: place (3 i + Δy, 3 j + Δx) is of offset Δ.

    Where a side is not one that all offsets fill alike (see `fitting_sides`), the last
    places of the smaller offsets are left out.

    Args:
        classifier: on a grid (`GridFeatures`), of a backbone whose last pooling is known.
        images: (B, 3, H, W), all of one size.
        fine: all offsets.

    Raises:
        UserError: the images are too small for one window, or the network is of another kind.
    """
    pooling = check_slides(classifier)
    if classifier.scores_are != "probabilities":
        raise UserError("views: SVMs on activations cannot be read densely: choose centre or whole")
    backbone = classifier.features.backbone
    maps = backbone.maps(backbone.normalize(images))
    # the map is computed once for all 9 offsets; they differ in where pooling begins
    offsets = pooling.stride if fine else 1
    sides = pooling.sides(maps.shape[2:], offsets)
    if min(sides) < pooling.grid:
        raise UserError(
            f"images of {images.shape[2]}×{images.shape[3]} pixels give a pooled map of "
            f"{sides[0]}×{sides[1]}, but the classifier needs {pooling.grid}×{pooling.grid}: "
            "choose a larger scale"
        )
    # (offsets² · B, C, h, w)
    logits = classifier.head.slide(pooling(maps, offsets), pooling.grid, CLASSIFIER)
    return interleaved(logits, offsets)


@torch.no_grad()
def dense_activations(
    classifier: Classifier, images: Tensor, layer: str, relu: bool = True
) -> Tensor:
    """Maps (B, D, h, w) of "pool5", "fc6", "fc7" or "logits", read densely without offsets.

    Args:
        classifier: see `dense_logits`.
        images: (B, 3, H, W), all of one size.
        layer: whose outputs.
        relu: see `Classifier.activations`.

    Raises:
        UserError: the network is of another kind, or the images are too small for one window.
    """
    backbone = classifier.features.backbone
    if not slides(classifier):
        raise UserError(
            f"dense=true: {layer} of this network is one vector an image: choose a convolution"
        )
    pooling = OffsetPooling.of(backbone)
    with classifier.autocast(images.device):
        maps = backbone.maps(backbone.normalize(images))
        if min(pooling.sides(maps.shape[2:], 1)) < pooling.grid:
            raise UserError(f"images of {images.shape[2]}×{images.shape[3]} pixels are too small")
        upto = CLASSIFIER if layer == "logits" else layer
        return classifier.head.slide(pooling(maps, 1), pooling.grid, upto, relu).float()


def slides(classifier: Classifier) -> bool:
    """Whether a classifier's fc6 reads one grid, and so can slide."""
    backbone = classifier.features.backbone
    return classifier.features.sides == (backbone.fc6_grid,) and backbone.pool is not None


def check_slides(classifier: Classifier) -> OffsetPooling:
    """The pooling of a classifier that can slide.

    Raises:
        UserError: it cannot.
    """
    if not slides(classifier):
        raise UserError("views: only a network whose fc6 reads one grid can be read densely")
    return OffsetPooling.of(classifier.features.backbone)


def dense_sizes(classifier: Classifier, height: int, width: int) -> list[tuple[str, str, int, int]]:
    """Maps that reading an image densely gives (table 5): name, what it is, height and width.

    None for a network that cannot, or an image too small for every offset.
    """
    backbone = classifier.features.backbone
    if not slides(classifier):
        return []
    pooling = OffsetPooling.of(backbone)
    offsets = pooling.stride
    before = (backbone.map_side(height), backbone.map_side(width))
    pooled = pooling.sides(before, offsets)
    slid = [side - pooling.grid + 1 for side in pooled]
    if min(slid) < 1:
        return []
    return [
        ("layer5", "before the last pooling", before[0], before[1]),
        ("pooled", f"pooled at each of {offsets}×{offsets} offsets", pooled[0], pooled[1]),
        ("slid", "classifier slid over each", slid[0], slid[1]),
        ("classes", "interleaved", offsets * slid[0], offsets * slid[1]),
    ]


def is_size(size: object) -> bool:
    """Whether a scale is given as height and width, or as the length of the shorter side.

    >>> is_size([245, 245]), is_size(245), is_size([245]), is_size("ab"), is_size(True)
    (True, True, False, False, False)
    """
    sides = size if isinstance(size, list | tuple) else [size, size]
    return len(sides) == 2 and all(type(side) is int for side in sides)


class DenseViews:
    """Whole images at several scales, each read densely; the spatial maximum counts.

    Args:
        sizes: height and width of landscape images, as in table 5 (portraits are turned): the
            paper does not say how images come to these sizes, and here they are scaled to them.
            Or lengths of the shorter side, the longer following. All are moved to the nearest
            that fits the network (see `fitting_sides`); those of table 5 fit the accurate one.
        flip: mirrored too.
        fine: pooled at all offsets.
        softmax: the maximum is that of probabilities; False: of logits.
    """

    def __init__(
        self,
        *,
        sizes: Sequence[Sequence[int] | int],
        flip: bool = True,
        fine: bool = True,
        softmax: bool = True,
    ) -> None:
        if not sizes or not all(map(is_size, sizes)):
            raise UserError(
                "views: sizes needs pairs of height and width, such as [[245, 245]], or lengths "
                "of the shorter side, such as [245]"
            )
        self.sizes = list(sizes)
        self.flip, self.fine, self.softmax = flip, fine, softmax

    def bind(self, side_px: int, backbone: Backbone) -> int:
        """Learn which sides fit; the shorter side of the largest scale.

        Raises:
            UserError: a scale is too small for the network, or two come to the same.
        """
        self.first, self.step = fitting_sides(backbone)
        shorter = [size if isinstance(size, int) else min(size) for size in self.sizes]
        if min(shorter) < self.first - self.step / 2:
            raise UserError(
                f"views: scale {min(shorter)} is too small for this network, whose smallest window "
                f"with all offsets has {self.first} pixels a side"
            )
        fitted = [
            tuple(self.nearest(side) for side in ([s] if isinstance(s, int) else s))
            for s in self.sizes
        ]
        if len(set(fitted)) < len(fitted):
            raise UserError(
                f"views: sizes {self.sizes} come to {sorted(set(fitted))}, the nearest that fit "
                "this network: leave out those that come to the same"
            )
        return max(shorter)

    def __call__(self, pixels: Pixels) -> list[Pixels]:
        """Each scale, then each mirrored."""
        sizes = [self.size(wanted, pixels.shape[:2]) for wanted in self.sizes]
        return mirrored([resized(pixels, *size) for size in sizes], self.flip)

    def size(self, wanted: Sequence[int] | int, shape: tuple[int, ...]) -> tuple[int, int]:
        """Height and width to which an image of some shape is scaled."""
        if isinstance(wanted, int):
            factor = wanted / min(shape)
            height, width = (side * factor for side in shape)
        else:
            low, high = sorted(wanted)
            height, width = (high, low) if shape[0] > shape[1] else (low, high)
        return self.nearest(height), self.nearest(width)

    def nearest(self, side_px: float) -> int:
        """The nearest side that fits."""
        return self.first + max(0, round((side_px - self.first) / self.step)) * self.step

    @torch.no_grad()
    def read(self, classifier: Classifier, views: Tensor) -> Tensor:
        """The largest score of each class over all places."""
        with classifier.autocast(views.device):
            logits = dense_logits(classifier, views, self.fine).float()
        scores = logits.softmax(dim=1) if self.softmax else logits
        # any place that is sure of a class decides: an object need not fill the image
        return scores.amax(dim=(2, 3))
