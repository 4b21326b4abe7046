"""Between boxes and the ten numbers that the network regresses, and from logits to detections.

A code is (x, y, z, log l, log w, log h, sin yaw, cos yaw, vx, vy): gravity centre in metres.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.structures import Detections

CODE_SIZE = 10


def encode_boxes(boxes: Tensor) -> Tensor:
    """Boxes (..., 9) to codes (..., 10). A size of 0 gives -inf, which the losses leave out."""
    center, size, yaw, velocity = boxes.split([3, 3, 1, boxes.shape[-1] - 7], dim=-1)
    return torch.cat((center, size.log(), yaw.sin(), yaw.cos(), velocity), dim=-1)


def decode_boxes(codes: Tensor) -> Tensor:
    """Codes (..., 10), or (..., 8) without velocity, to boxes (..., 9) or (..., 7)."""
    center, log_size, sin, cos, velocity = codes.split([3, 3, 1, 1, codes.shape[-1] - 8], dim=-1)
    return torch.cat((center, log_size.exp(), torch.atan2(sin, cos), velocity), dim=-1)


def decode_detections(
    logits: Tensor,
    codes: Tensor,
    max_detections: int,
    center_range: Tensor,
    score_threshold: float | None = None,
) -> Detections:
    """Best (query, class) pairs of one frame; a query may appear with several classes. No NMS.

    Args:
        logits: (Q, classes) of the last layer.
        codes: (Q, 10).
        max_detections: pairs to keep at most.
        center_range: (6,) metres; boxes whose centre lies outside (inclusive limits) are dropped.
        score_threshold: drop pairs below; None or 0 keeps all.

    Returns:
        Detections, best first.
    """
    num_classes = logits.shape[-1]
    scores = logits.sigmoid().flatten()
    scores, indexes = scores.topk(min(max_detections, len(scores)))
    boxes = decode_boxes(codes[indexes // num_classes])
    center = boxes[:, :3]
    keep = (center >= center_range[:3]).all(-1) & (center <= center_range[3:]).all(-1)
    if score_threshold:
        keep &= scores >= score_threshold
    return Detections(boxes[keep], scores[keep], (indexes % num_classes)[keep])
