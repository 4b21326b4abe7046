"""2D targets of one picture, and what the image transform does to them.

Source: the 2D part of ResizeCropFlipRotImage of StreamPETR. They train the auxiliary 2D head.
"""

from __future__ import annotations

import numpy as np
import torch

from streampetr_vit.data.transforms import ImageDraw
from streampetr_vit.structures import Boxes2D


def transform_boxes2d(
    boxes: Boxes2D, draw: ImageDraw, min_size_px: float = 2.0, drop_hidden: bool = True
) -> Boxes2D:
    """Moves 2D targets with their picture.

    Depths are not scaled. Centres outside the picture are moved onto its border.

    Args:
        boxes: targets in the stored picture.
        draw: the picture's transform.
        min_size_px: boxes smaller than this in width or height after clipping are dropped.
        drop_hidden: drop boxes that nearer ones cover completely; the rest is then sorted from far
            to near.
    """
    height, width = draw.final_size
    limit = torch.tensor([width, height], dtype=torch.float32)
    origin = torch.tensor(draw.crop_origin, dtype=torch.float32)
    corners = boxes.corners * draw.scale - origin.repeat(2)  # (n, 4): x1, y1, x2, y2
    corners = torch.minimum(corners.clamp(min=0), limit.repeat(2))
    # Quirk: clipped before the flip, so that a truncated object's centre lies on the border.
    centers = torch.minimum((boxes.centers * draw.scale - origin).clamp(min=0), limit)
    keep = ((corners[:, 2:] - corners[:, :2]) >= min_size_px).all(dim=1)
    if draw.flip:  # the left edge becomes the right one
        corners = torch.stack(
            (width - corners[:, 2], corners[:, 1], width - corners[:, 0], corners[:, 3]), dim=1
        )
        centers = torch.stack((width - centers[:, 0], centers[:, 1]), dim=1)
    moved = Boxes2D(corners, centers, boxes.labels, boxes.depths)[keep]
    return _without_hidden(moved, draw.final_size) if drop_hidden and len(moved) else moved


def _without_hidden(boxes: Boxes2D, size: tuple[int, int]) -> Boxes2D:
    """Paints whole-pixel rectangles from far to near and keeps what remains visible."""
    boxes = boxes[torch.argsort(boxes.depths, descending=True, stable=True)]
    left, top = boxes.corners[:, :2].ceil().int().numpy().T
    right, bottom = boxes.corners[:, 2:].floor().int().numpy().T
    # Pixels between the same edges of rectangles have the same fate: one cell stands for them all.
    edges_x = np.unique([0, size[1], *left, *right])
    edges_y = np.unique([0, size[0], *top, *bottom])
    # Quirk: the picture starts as if the farthest box, number 0, covered it, so that this box is
    # kept as long as any pixel stays free.
    owner = np.zeros((len(edges_y) - 1, len(edges_x) - 1), np.int64)
    columns = zip(edges_x.searchsorted(left), edges_x.searchsorted(right), strict=True)
    rows = zip(edges_y.searchsorted(top), edges_y.searchsorted(bottom), strict=True)
    for number, ((x1, x2), (y1, y2)) in enumerate(zip(columns, rows, strict=True)):
        owner[y1:y2, x1:x2] = number
    return boxes[torch.from_numpy(np.unique(owner))]
