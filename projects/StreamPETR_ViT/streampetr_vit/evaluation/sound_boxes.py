"""Detections that a metric can be computed from: broken ones are dropped, or refused if many."""

from __future__ import annotations

import torch
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.evaluation.result_records import MAX_BOXES_PER_SAMPLE
from streampetr_vit.structures import Detections

# Of the boxes of a sample. Early in a training the size of a box or two of 300 overflows or
# underflows; a network that diverged, or a memory with NaN in it, breaks most.
MAX_BROKEN_SHARE = 0.1


def sound_boxes(detections: Detections, sample_token: str, num_classes: int) -> Detections:
    """The detections of one sample, on the CPU, without broken ones.

    A broken one has a value that is not finite, or a size that is not positive.

    Raises:
        InputError: more than `MAX_BROKEN_SHARE` are broken, a label is out of range, or there are
            more boxes than the nuScenes task accepts.
    """
    # The devkit would refuse them only after the whole evaluation, and name no sample.
    where = f"sample {sample_token}"
    if len(detections) > MAX_BOXES_PER_SAMPLE:
        raise InputError(
            f"{where} has {len(detections)} detections; the nuScenes task accepts at most "
            f"{MAX_BOXES_PER_SAMPLE}. Decode fewer boxes: model.head.max_detections"
        )
    labels = detections.labels
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise InputError(
            f"{where}: labels span {int(labels.min())} to {int(labels.max())}; allowed are 0 to "
            f"{num_classes - 1}, the classes of dataset_spec: the head has another number of them"
        )
    sound = sound_rows(detections)
    broken = int((~sound).sum())
    if broken > MAX_BROKEN_SHARE * len(detections):
        raise InputError(
            f"{where}: {broken} of its {len(detections)} boxes are broken, the first is "
            f"{_first(detections, ~sound)}. The network diverged, its checkpoint is damaged, or "
            "the precision of evaluation is too low (train.eval_precision)"
        )
    if not broken:
        return detections
    return detections[sound]


def sound_rows(detections: Detections) -> Tensor:
    """(n,) bool, which detections are not broken."""
    finite = torch.isfinite(detections.boxes).all(dim=1) & torch.isfinite(detections.scores)
    return finite & (detections.boxes[:, 3:6] > 0).all(dim=1)


def _first(detections: Detections, chosen: Tensor) -> str:
    box, score = detections.boxes[chosen][0], detections.scores[chosen][0]
    return f"{[round(value, 3) for value in box.tolist()]} with score {float(score):.3g}"
