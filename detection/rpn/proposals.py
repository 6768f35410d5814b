"""A region proposal network as a detector's source of proposals (Ren et al. 2015, section 3)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detection.backbones.backbone import Backbone
from detection.boxes import clip_boxes_to_image
from detection.combine.nms import NMS, concatenate
from detection.data.samples import as_image
from detection.disk.checkpoints import weights_digest
from detection.errors import UserError
from detection.localization.views import ScaledViews
from detection.rpn.anchors import Anchors
from detection.rpn.head import RPNHead


class RPNSearch(nn.Module):
    """The per-class RPN with a single class, "object": `boxes = search(image)`.

    Args:
        backbone: whose maps are read; the RPN's own.
        anchors: about every cell.
        hidden: see `RPNHead` (3.1: 512 for VGG-16).
        sizes: scales at which an image is looked at, see `ScaledViews`.
        max_candidates: boxes of a scale that go into suppression, the best, small ones among them.
        max_iou: of two boxes that overlap more, the lower is left out.
        max_boxes: kept after that.
        min_side_px: boxes with a shorter side are dropped, in pixels of the image; those of less
            than a pixel in any case.

    Attributes:
        is_trained: 1 once a stage has learnt it; part of the state.
    """

    name: ClassVar[str] = "the region proposal network"
    is_network: ClassVar[bool] = True
    notice: ClassVar[str] = ""
    hint: ClassVar[str] = (
        "a longer training (proposals.training.epochs), smaller or larger anchors "
        "(proposals.search.anchors.sizes_px), or another scale of the image "
        "(proposals.search.sizes)"
    )
    is_trained: Tensor

    def __init__(
        self,
        backbone: Backbone,
        *,
        anchors: Anchors,
        hidden: int | None = 512,
        sizes: Sequence[Sequence[int] | int] = (600,),
        max_candidates: int = 6000,
        max_iou: float = 0.7,
        max_boxes: int = 300,
        min_side_px: float = 16,
    ) -> None:
        super().__init__()
        for name, value in (("max_candidates", max_candidates), ("max_boxes", max_boxes)):
            if value < 1:
                raise UserError(f"{name}={value}: at least one box is kept")
        self.backbone = backbone
        self.anchors = anchors
        self.head = RPNHead(backbone.channels, len(anchors), 1, hidden)
        self.views = ScaledViews(sizes)
        self.views.bind(backbone, 1)
        self.max_candidates, self.min_side_px = max_candidates, min_side_px
        self.select = NMS(max_iou, max_boxes, max_boxes)
        self.register_buffer("is_trained", torch.tensor(False))

    @property
    def is_ready(self) -> bool:
        """See `ProposalSource.is_ready`."""
        return bool(self.is_trained)

    def identity(self) -> str:
        """See `ProposalSource.identity`."""
        parts = (self.views.settings(), self.anchors, self.max_candidates, self.select,
                 self.min_side_px)  # fmt: skip
        return f"RPN {weights_digest(self)} {parts!r}"

    def maps(self, view: Tensor) -> Tensor:
        """(1, C, h, w) of a (3, H, W) image."""
        return self.backbone.maps(self.backbone.normalize(view[None]))

    def anchor_boxes(self, maps: Tensor) -> Tensor:
        """(P · A, 4) anchors of a map, on the CPU."""
        return self.anchors.boxes(self.backbone.field, maps.shape[2:])

    @torch.no_grad()
    def forward(self, image: Any) -> NDArray[np.float32]:
        """The (P, 4) boxes of an (H, W, 3) uint8 RGB image, best first; P ≥ 1.

        Raises:
            UserError: it has not been trained.
        """
        if not self.is_ready:
            raise UserError(
                "proposals=rpn: the network that proposes is not trained: model.stages.propose "
                "trains it"
            )
        size = (image.shape[0], image.shape[1])
        device = self.is_trained.device
        label = torch.zeros(1, dtype=torch.long, device=device)
        found = []
        pairs = zip(self.views.views(image, size), self.views.frames(size), strict=True)
        for view, frame in pairs:
            maps = self.maps(as_image(view).contiguous().to(device))
            anchors = self.anchor_boxes(maps).to(device)
            some = self.head.best_boxes(
                self.head.features(maps), label, anchors, self.max_candidates
            )
            boxes = clip_boxes_to_image(frame.to_original(some["boxes"]), size)
            big = (boxes[:, 2:] - boxes[:, :2]).amin(dim=1) >= max(1.0, self.min_side_px)
            found.append({key: value[big] for key, value in {**some, "boxes": boxes}.items()})
        boxes = self.select(concatenate(found))["boxes"]
        if len(boxes) == 0:  # an image smaller than a box
            boxes = torch.tensor([[0.0, 0.0, size[1], size[0]]])
        return np.asarray(boxes.cpu().numpy(), np.float32)
