"""The attention kernels against each other, by the shape of the windows.

Each as inference uses it, without padded keys; the results are compared with the plain maths, which
has them.
Shape letters: W windows of all images, h heads, r real tokens, D head dimension.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from streampetr_vit.benchmark.latency import relative_difference
from streampetr_vit.benchmark.result import Result, Row, first_line
from streampetr_vit.benchmark.session import Session
from streampetr_vit.benchmark.timing import alternately, time_row
from streampetr_vit.engine.config import instantiate_model
from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone.padded_attention import window_attention
from streampetr_vit.modeling.backbone.windows import WindowGroup, WindowLayout
from streampetr_vit.modeling.ops.kernel_choice import AUTO, KERNEL_NAMES, why_not
from streampetr_vit.modeling.ops.precision import DTYPES


def parse_group(text: str) -> WindowGroup:
    """Windows of one shape from "18x64+192": windows, real tokens, padded keys.

    Raises:
        InputError: not of that form, or without a window or a token.
    """
    found = re.fullmatch(r"0*([1-9]\d*)x0*([1-9]\d*)\+(\d+)", text)
    if found is None:
        raise InputError(
            f"shape {text!r} must be WINDOWSxTOKENS+PADDED, such as 18x64+192: 18 windows of 64 "
            "real tokens with 192 padded keys; at least one window and one token"
        )
    return WindowGroup(*map(int, found.groups()))


def configured_groups(session: Session, cameras: int) -> list[WindowGroup]:
    """The windows of a frame of the session's recipe, local and global ones."""
    with torch.device("meta"):
        model = instantiate_model(session.cfg)
    net = model.backbone.net
    height, width = (side // net.patch_size for side in model.padded_size(session.image_size))
    found: list[WindowGroup] = []
    for side in dict.fromkeys(block.attn.window_size for block in net.blocks):
        layout = WindowLayout.make(cameras, (height, width), side, None, torch.device("cpu"))
        found += layout.groups
    return found


def measure_kernels(
    session: Session, *, groups: Sequence[WindowGroup] = (), cameras: int = 6
) -> Result:
    """Times every kernel of `ops.kernel_choice` on every shape of windows, forward.

    Args:
        session: device, precision, and heads of the ViT.
        groups: by default those of the recipe.
        cameras: of the rig that gives them.
    """
    net = session.cfg.model.backbone.net
    heads, dim = net.num_heads, net.embed_dim // net.num_heads
    result = session.result("attention", heads=heads, head_dim=dim)
    for group in groups or configured_groups(session, cameras):
        name = f"{group.windows} windows of {group.tokens} tokens, {group.padded} padded keys"
        result.tables[name] = _group_rows(session, group, heads, dim)
    return result


@torch.no_grad()
def _group_rows(session: Session, group: WindowGroup, heads: int, dim: int) -> list[Row]:
    """A row for each kernel. One that this machine lacks says so; one that fails has an error."""
    torch.manual_seed(0)
    sizes = [(group.windows * group.tokens, heads, dim)] * 3 + [(heads, dim)]
    drawn = [torch.randn(size).to(session.device, DTYPES[session.precision]) for size in sizes]
    layout = _layout(group, session.device)
    with torch.enable_grad():  # with gradients the maths are plain: every padded key is there
        expected = window_attention(*(x.float() for x in drawn), layout, "math")
    calls: dict[str, Callable[[], Tensor]] = {}
    rows: dict[str, Row] = {}
    for kernel in KERNEL_NAMES:
        if kernel == AUTO:
            continue
        missing = why_not(kernel, session.device.type, drawn[0].dtype)
        if missing is not None:
            rows[kernel] = {"not_run": missing}
            continue
        call = partial(window_attention, *drawn, layout, kernel)
        try:
            rows[kernel] = {"rel_diff": relative_difference(call().float(), expected)}
            calls[kernel] = call
        except (RuntimeError, ValueError, TypeError) as error:
            rows[kernel] = {"error": first_line(error)}
    timed = alternately(list(calls.values()), session.device, session.repeats, session.warmup)
    useful = 4e-12 * group.windows * group.tokens**2 * heads * dim
    for kernel, seconds in zip(calls, timed, strict=True):
        rows[kernel] = time_row(seconds, useful) | rows[kernel]
    return [{"kernel": kernel, **row} for kernel, row in rows.items()]


def _layout(group: WindowGroup, device: torch.device) -> WindowLayout:
    """Windows of one shape, in their order."""
    made = WindowLayout.make(group.windows, (1, group.tokens), 0, None, device)
    log_padded = torch.full_like(made.log_padded, group.padded).log()
    return replace(made, groups=(group,), log_padded=log_padded)
