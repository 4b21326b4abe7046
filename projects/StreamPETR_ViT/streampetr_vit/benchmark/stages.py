"""The streaming step that is measured, and the stages of it.

Stages are told apart by hooks on the detector's modules: what is timed is the detector's own step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from streampetr_vit.benchmark.timing import Stopwatch
from streampetr_vit.engine.compile import compile_parts
from streampetr_vit.engine.streaming import StreamingStep
from streampetr_vit.modeling.detector import StreamPETR

STAGES = ("position embedding", "preprocess", "backbone", "head", "decode")


def streaming_step(
    detector: StreamPETR, precision: str, compiled: bool = False, cuda_graph: bool = False
) -> StreamingStep:
    """The step to measure. In half precision the backbone's weights are cast once.

    Args:
        detector: in evaluation mode; changed in place by compilation and the cast.
        precision: "float32", "bf16" or "fp16".
        compiled: torch.compile for the blocks of the ViT and for the decoder.
        cuda_graph: replay a captured graph; needs a GPU.

    Raises:
        InputError: a graph without a GPU.
    """
    if compiled:
        compile_parts(detector, backbone=True, decoder=True)
    return StreamingStep(detector, precision, cuda_graph, cast=True)


@contextmanager
def stage_laps(detector: StreamPETR, watch: Stopwatch) -> Iterator[None]:
    """Laps of `watch` at the borders of `STAGES`, but for the last, which ends with the step.

    "backbone" has pyramid and neck, "head" everything between them and the boxes. A frame whose rig
    is another than the last one's begins with "position embedding", of StreamPETR's image tokens.
    """

    def before(module: nn.Module, name: str) -> Any:
        return module.register_forward_pre_hook(lambda *_: watch.lap(name))

    def after(module: nn.Module, name: str) -> Any:
        return module.register_forward_hook(lambda *_: watch.lap(name))

    handles = [
        before(detector.backbone, "preprocess"),
        after(image_branch_end(detector), "backbone"),
        after(detector.head, "head"),
    ]
    encoder = getattr(detector.head, "position_encoder", None)
    if encoder is not None:
        handles += [before(encoder, "preprocess"), after(encoder, "position embedding")]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def image_branch_end(detector: StreamPETR) -> nn.Module:
    """The module whose output the heads read."""
    return detector.backbone if detector.neck is None else detector.neck
