"""Between boxes and the ten numbers that the network regresses, and from logits to detections.

Shape letters: B streams, Q queries, K detections of a stream at most.
A code is (x, y, z, log l, log w, log h, sin yaw, cos yaw, vx, vy): gravity centre in metres.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.heads.quality import centerness_of
from streampetr_vit.modeling.ops.geometry import gather_tokens
from streampetr_vit.structures import PaddedDetections

CODE_SIZE = 10


def encode_boxes(boxes: Tensor) -> Tensor:
    """Boxes (..., 9) to codes (..., 10). A size of 0 gives -inf, which the losses leave out."""
    # Logarithms keep sizes positive; a sine and a cosine have no jump where the yaw wraps.
    center, size, yaw, velocity = boxes.split([3, 3, 1, boxes.shape[-1] - 7], dim=-1)
    return torch.cat((center, size.log(), yaw.sin(), yaw.cos(), velocity), dim=-1)


def decode_boxes(codes: Tensor) -> Tensor:
    """Codes (..., 10), or (..., 8) without velocity, to boxes (..., 9) or (..., 7)."""
    center, log_size, sin, cos, velocity = codes.split([3, 3, 1, 1, codes.shape[-1] - 8], dim=-1)
    return torch.cat((center, log_size.exp(), torch.atan2(sin, cos), velocity), dim=-1)


def decode_padded(
    output: HeadOutput,
    max_detections: int,
    center_range: Tensor,
    score_threshold: float | None = None,
) -> PaddedDetections:
    """The best K (query, class) pairs of each stream, best first, without NMS.

    Where the head says how good its boxes are, the scores of these K are multiplied by the
    centerness, and sorted by the product.

    Args:
        output: of the head; its last layer decides.
        max_detections: K, or all pairs if there are fewer.
        center_range: (6,) metres; boxes whose centre lies outside (inclusive limits) are invalid.
        score_threshold: pairs whose class score is below are invalid; None or 0 keeps all.
    """
    logits, codes = output.logits[-1], output.codes[-1]  # (B, Q, classes), (B, Q, 10)
    num_classes = logits.shape[-1]
    # A query may appear with several classes: (B, Q, classes) -> (B, Q * classes)
    scores = logits.sigmoid().flatten(1)
    scores, indexes = scores.topk(min(max_detections, scores.shape[1]), dim=1)  # (B, K)
    class_scores, queries, labels = scores, indexes // num_classes, indexes % num_classes
    if output.quality is not None:
        centerness = centerness_of(output.quality[-1]).gather(1, queries)
        # Stable: where all are equally good, the order is that of the classes' scores.
        scores, order = (scores * centerness).sort(dim=1, descending=True, stable=True)
        class_scores, queries, labels = (
            value.gather(1, order) for value in (class_scores, queries, labels)
        )
    boxes = decode_boxes(gather_tokens(codes, queries))  # (B, K, 9)
    center = boxes[..., :3]
    # Marked, not left out: how many there are would have to be read back from the device.
    valid = (center >= center_range[:3]).all(-1) & (center <= center_range[3:]).all(-1)
    if score_threshold:
        valid &= class_scores >= score_threshold
    lineages = output.lineage.gather(1, queries)
    return PaddedDetections(boxes, scores, labels, valid, queries, lineages, output.remembered)
