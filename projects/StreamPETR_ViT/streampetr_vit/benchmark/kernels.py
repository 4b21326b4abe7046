"""The attention kernels against each other, by the shape of the windows.

Each as inference uses it, without padded keys; the results are compared with the plain maths, which
has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from streampetr_vit.benchmark import measuring
from streampetr_vit.benchmark.session import Session
from streampetr_vit.engine.config import instantiate_model
from streampetr_vit.modeling.backbone.padded_attention import window_attention
from streampetr_vit.modeling.backbone.windows import WindowGroup, WindowLayout
from streampetr_vit.modeling.ops.kernel_choice import AUTO, KERNEL_NAMES, why_not
from streampetr_vit.modeling.ops.precision import DTYPES


def _configured_groups(session: Session, cameras: int) -> list[WindowGroup]:
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
    session: Session, *, shapes: Sequence[tuple[int, int, int]], cameras: int
) -> measuring.Tables:
    """Times every kernel of `ops.kernel_choice` on every shape of windows, forward.

    Args:
        session: device, precision, and heads of the ViT.
        shapes: windows, real tokens and padded keys of each; none for those of the recipe.
        cameras: of the rig that gives them.
    """
    _ = session.net  # an error here for a recipe without a ViT
    groups = [WindowGroup(*shape) for shape in shapes] or _configured_groups(session, cameras)
    title = "{0.windows} windows of {0.tokens} tokens, {0.padded} padded keys"
    return {title.format(group): _kernel_rows(session, group) for group in groups}


@torch.no_grad()
def _kernel_rows(session: Session, group: WindowGroup) -> list[measuring.Row]:
    """A row for each kernel. One that this machine lacks says so; one that fails has an error."""
    torch.manual_seed(0)
    net = session.net
    heads, dim = net.num_heads, net.embed_dim // net.num_heads
    # Query, key and value of the tokens, and the value of the padded keys.
    sizes = [(group.windows * group.tokens, heads, dim)] * 3 + [(heads, dim)]
    drawn = [torch.randn(size).to(session.device, DTYPES[session.precision]) for size in sizes]
    made = WindowLayout.make(group.windows, (1, group.tokens), 0, None, session.device)
    log_padded = torch.full_like(made.log_padded, group.padded).log()
    layout = replace(made, groups=(group,), log_padded=log_padded)
    with torch.enable_grad():  # with gradients the maths are plain: every padded key is there
        expected = window_attention(*(x.float() for x in drawn), layout, "math")
    useful = 4e-12 * group.windows * group.tokens**2 * heads * dim

    def measure(kernel: str) -> measuring.Row:
        call = partial(window_attention, *drawn, layout, kernel)
        difference = measuring.relative_difference(call(), expected)
        (seconds,) = measuring.alternately([call], session.repeats, session.warmup)
        return {**measuring.time_row(seconds, useful), "rel_diff": difference}

    rows = []
    for kernel in (name for name in KERNEL_NAMES if name != AUTO):
        missing = why_not(kernel, session.device, drawn[0].dtype)
        row: measuring.Row = {"not_run": missing}
        if missing is None:
            row = measuring.row_or_error(partial(measure, kernel))
        rows.append({"kernel": kernel, **row})
    return rows
