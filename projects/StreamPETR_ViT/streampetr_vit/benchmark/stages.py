"""The streaming step that is measured, and the stages of it.

Stages are told apart by hooks on the detector's modules: what is timed is the detector's own step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, Protocol

import torch
from torch import nn

from streampetr_vit.benchmark.timing import Stopwatch
from streampetr_vit.engine.trainer import autocast
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Detections, Frame

STAGES = ("preprocess", "backbone", "position embedding", "head", "decode")


class Step(Protocol):
    """Frame and memory in, detections and the next memory out."""

    def step(self, frame: Frame, memory: TemporalMemory) -> tuple[list[Detections], TemporalMemory]:
        """One frame of B streams."""
        ...


class EagerStep:
    """The detector's step and decoding, as its evaluation calls them.

    Args:
        detector: in evaluation mode.
        precision: "float32", "bf16" or "fp16".
    """

    def __init__(self, detector: StreamPETR, precision: str) -> None:
        self._detector, self._precision = detector, precision

    @torch.no_grad()
    def step(self, frame: Frame, memory: TemporalMemory) -> tuple[list[Detections], TemporalMemory]:
        """One frame of B streams."""
        with autocast(self._precision, self._detector.device.type):
            output, memory = self._detector.step(frame, memory)
            return self._detector.head.detections(output), memory


def streaming_step(
    detector: StreamPETR, precision: str, compiled: bool = False, cuda_graph: bool = False
) -> Step:
    """The step to measure. The one place where compilation and graph capture come in.

    Args:
        detector: in evaluation mode; changed in place by compilation.
        precision: "float32", "bf16" or "fp16".
        compiled: torch.compile for each block of the ViT and each layer of the decoder.
        cuda_graph: replay a captured graph; needs a GPU.

    Raises:
        InputError: a graph without a GPU, or without the class that captures it.
    """
    if compiled:
        compile_parts(detector)
    if not cuda_graph:
        return EagerStep(detector, precision)
    if detector.device.type != "cuda":
        raise InputError("--cuda-graph needs a GPU; leave it out, or use --device cuda")
    if find_spec("streampetr_vit.engine.streaming") is None:
        raise InputError("--cuda-graph: this version has no streampetr_vit.engine.streaming")
    from streampetr_vit.engine.streaming import StreamingStep

    return StreamingStep(detector, precision=precision, cuda_graph=True)


def compile_parts(detector: StreamPETR) -> None:
    """Compiles the ViT's blocks and the decoder's layers in place; names of weights stay."""
    blocks = detector.backbone.get_submodule("net.blocks")
    for part in (*blocks.children(), *detector.head.decoder.layers):
        part.compile()


@contextmanager
def stage_laps(detector: StreamPETR, watch: Stopwatch) -> Iterator[None]:
    """Laps of `watch` at the borders of `STAGES`, but for the last, which ends with the step.

    "backbone" has pyramid and neck, "head" everything between them and the boxes but the embedding
    of the image tokens' positions, which StreamPETR's head has.
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
        handles += [before(encoder, "head"), after(encoder, "position embedding")]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def image_branch_end(detector: StreamPETR) -> nn.Module:
    """The module whose output the heads read."""
    return detector.backbone if detector.neck is None else detector.neck
