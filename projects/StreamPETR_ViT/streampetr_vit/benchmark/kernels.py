"""The attention kernels against each other, by the shape of the windows.

Each as inference uses it, without padded keys; the results are compared with the plain maths, which
has them.
Shape letters: W windows of all images, h heads, r real tokens, p padded ones, D head dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from streampetr_vit.benchmark.flops import ViTShape
from streampetr_vit.benchmark.latency import relative_difference
from streampetr_vit.benchmark.report import Report, Row, first_line
from streampetr_vit.benchmark.session import Session, require_positive
from streampetr_vit.benchmark.timing import alternately, percentile
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.padded_attention import window_attention
from streampetr_vit.modeling.backbone.windows import WindowLayout
from streampetr_vit.modeling.ops.attention import attention
from streampetr_vit.modeling.ops.kernel_choice import AUTO, KERNEL_NAMES, why_not
from streampetr_vit.modeling.ops.precision import PRECISIONS

Shape = tuple[int, int, int]  # windows, real tokens of each, padded keys of each


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
    """Times every kernel of `ops.kernel_choice` on every shape, forward.

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
    """A row for each kernel. One that this machine lacks says so; one that fails has an error."""
    windows, real, padded = shape
    dtype = PRECISIONS[session.precision]
    query, key, value, pad_value = _inputs(session, vit, shape)
    layout = _layout(shape, session.device)
    calls: dict[str, Callable[[], Tensor]] = {}
    rows: dict[str, Row] = {}
    with torch.no_grad():
        expected = _plain(query, key, value, pad_value, shape)
        for kernel in KERNEL_NAMES:
            if kernel == AUTO:
                continue
            missing = why_not(kernel, session.device.type, dtype)
            if missing is not None:
                rows[kernel] = {"not_run": missing}
                continue
            call = partial(window_attention, query, key, value, pad_value, layout, kernel)
            try:
                difference = relative_difference(call().float(), expected)
            except (RuntimeError, ValueError, TypeError) as error:
                rows[kernel] = {"error": first_line(error)}
                continue
            calls[kernel], rows[kernel] = call, {"rel_diff": difference}
        timed = alternately(list(calls.values()), session.device, session.repeats)
    flops = 4.0 * windows * real * real * vit.embed_dim  # useful ones
    for kernel, seconds in zip(calls, timed, strict=True):
        median = percentile(seconds, 50)
        rows[kernel] = {
            "p50_ms": 1e3 * median,
            "p90_ms": 1e3 * percentile(seconds, 90),
            "tflops": 1e-12 * flops / median,
            **rows[kernel],
        }
    return [{"kernel": kernel, **row} for kernel, row in rows.items()]


def _inputs(session: Session, vit: ViTShape, shape: Shape) -> tuple[Tensor, ...]:
    """query, key and value (W * r, h, D), and the value of a padded token (h, D)."""
    windows, real, _ = shape
    heads, dim = vit.num_heads, vit.embed_dim // vit.num_heads
    generator = torch.Generator().manual_seed(0)
    sizes = [(windows * real, heads, dim)] * 3 + [(heads, dim)]
    dtype = PRECISIONS[session.precision]
    drawn = [torch.randn(size, generator=generator) for size in sizes]
    return tuple(x.to(session.device, dtype) for x in drawn)


def _layout(shape: Shape, device: torch.device) -> WindowLayout:
    """Windows of one shape, in their order."""
    windows, real, padded = shape
    one = WindowLayout.make(windows, (1, real), 0, None, device)
    log_padded = torch.full_like(one.log_padded, padded).log()
    groups = tuple(replace(group, padded=padded) for group in one.groups)
    return replace(one, groups=groups, log_padded=log_padded)


def _plain(query: Tensor, key: Tensor, value: Tensor, pad_value: Tensor, shape: Shape) -> Tensor:
    """The specification, in float32: (W * r, h, D)."""
    windows, real, padded = shape
    q, k, v = (
        x.float().unflatten(0, (windows, real)).transpose(1, 2)  # (W, h, r, D)
        for x in (query, key, value)
    )
    k = torch.nn.functional.pad(k, (0, 0, 0, padded))
    pads = pad_value.float()[:, None].expand(windows, -1, padded, -1)
    out = attention(q, k, torch.cat((v, pads), dim=2), kernel="math")
    return out.transpose(1, 2).flatten(0, 1)
