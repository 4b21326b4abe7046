"""The attention kernels against each other, by the shape of the windows.

Padded keys are zeros, and every kernel gets them: this compares kernels, not forms of the ViT.
Shape letters: B windows of all images, h heads, r real tokens, m keys (real and padded), D head
dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from streampetr_vit.benchmark.flops import ViTShape
from streampetr_vit.benchmark.latency import relative_difference
from streampetr_vit.benchmark.report import Report, Row, first_line
from streampetr_vit.benchmark.session import Session, require_positive
from streampetr_vit.benchmark.timing import alternately, percentile
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.ops.attention import KERNELS, attention
from streampetr_vit.modeling.temporal.transformer import PRECISIONS

Shape = tuple[int, int, int]  # windows, real tokens of each, padded keys of each
REFERENCE = "math"


def parse_shape(text: str) -> Shape:
    """(windows, real tokens, padded keys) from "48x256+0".

    Raises:
        InputError: not of that form, or without a window or a token.
    """
    windows, _, tokens = text.partition("x")
    real, _, padded = tokens.partition("+")
    if not all(part.isdigit() for part in (windows, real, padded)):
        raise InputError(
            f"shape {text!r} must be WINDOWSxTOKENS+PADDED, such as 18x64+192: 18 windows of 64 "
            "real tokens with 192 padded keys"
        )
    shape = int(windows), int(real), int(padded)
    if min(shape[:2]) < 1:
        raise InputError(f"shape {text!r} needs at least one window and one token")
    return shape


def configured_shapes(session: Session, cameras: int) -> list[Shape]:
    """The windows of a frame of the session's recipe."""
    vit = ViTShape.of(session.cfg.model.backbone.net)
    found = vit.windows(session.image_size)
    return [(cameras * window.count, window.real, window.padded) for window in found]


def measure_kernels(session: Session, *, shapes: Sequence[Shape] = (), cameras: int = 6) -> Report:
    """Times every kernel of `ops.attention.KERNELS` on every shape, forward.

    Args:
        session: device, precision, and heads of the ViT.
        shapes: by default those of the recipe.
        cameras: of the rig that gives them.
    """
    require_positive("--num-cameras", cameras)
    vit = ViTShape.of(session.cfg.model.backbone.net)
    report = session.report(
        "attention", heads=vit.num_heads, head_dim=vit.embed_dim // vit.num_heads
    )
    for shape in shapes or configured_shapes(session, cameras):
        windows, real, padded = shape
        name = f"{windows} windows of {real} tokens, {padded} padded keys"
        report.tables[name] = _shape_rows(session, vit, shape)
    return report


def _shape_rows(session: Session, vit: ViTShape, shape: Shape) -> list[Row]:
    """A row for each kernel; those that cannot run here have an error."""
    windows, real, padded = shape
    query, key, value = _inputs(session, vit, shape)
    calls: dict[str, Callable[[], Tensor]] = {}
    outputs: dict[str, Tensor] = {}
    rows: dict[str, Row] = {}
    with torch.no_grad():
        for kernel in KERNELS:
            call = partial(attention, query, key, value, kernel=kernel)
            try:
                outputs[kernel], calls[kernel] = call(), call
            except (RuntimeError, ValueError, TypeError, ImportError) as error:
                rows[kernel] = {"error": first_line(error)}
        timed = alternately(list(calls.values()), session.device, session.repeats)
    flops = 4.0 * windows * real * (real + padded) * vit.embed_dim
    for kernel, seconds in zip(calls, timed, strict=True):
        median = percentile(seconds, 50)
        rows[kernel] = {
            "p50_ms": 1e3 * median,
            "p90_ms": 1e3 * percentile(seconds, 90),
            "tflops": 1e-12 * flops / median,
        }
        if REFERENCE in outputs:
            expected = outputs[REFERENCE].float()
            rows[kernel]["rel_diff"] = relative_difference(outputs[kernel].float(), expected)
    return [{"kernel": kernel, **rows[kernel]} for kernel in KERNELS]


def _inputs(session: Session, vit: ViTShape, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """query (B, h, r, D); key and value (B, h, m, D)."""
    windows, real, padded = shape
    heads, dim = vit.num_heads, vit.embed_dim // vit.num_heads
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(windows, heads, real, dim, generator=generator) for _ in range(3)
    )
    keys = torch.nn.functional.pad(key, (0, 0, 0, padded))
    bias = torch.randn(heads, 1, dim, generator=generator)  # a padded value is the layer's bias
    values = torch.cat((value, bias.expand(windows, -1, padded, -1)), dim=2)
    dtype = PRECISIONS[session.precision]
    query, keys, values = (x.to(session.device, dtype) for x in (query, keys, values))
    return query, keys, values
