"""Window order: every token in its window, windows of one shape together, nothing padded."""

from __future__ import annotations

import pytest
import torch

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d, rotary_tables
from streampetr_vit.modeling.backbone.token_plan import TokenPlan
from streampetr_vit.modeling.backbone.windows import WindowLayout, split_windows

CPU = torch.device("cpu")
# (batch, map, window): no rest, a rest on each side and on both, one smaller than a window, whole
SHAPES = [
    (2, (8, 12), 4),
    (1, (8, 10), 4),
    (2, (9, 8), 4),
    (3, (9, 10), 4),
    (2, (3, 10), 4),
    (1, (2, 3), 4),
    (2, (5, 7), 0),
]


def layout_of(batch: int, map_size: tuple[int, int], size: int) -> WindowLayout:
    return WindowLayout.make(batch, map_size, size, None, CPU)


@pytest.mark.parametrize(("batch", "map_size", "size"), SHAPES)
def test_window_order_is_a_permutation_that_restore_undoes(
    batch: int, map_size: tuple[int, int], size: int
) -> None:
    layout = layout_of(batch, map_size, size)
    tokens = batch * map_size[0] * map_size[1]
    assert layout.order.sort().values.tolist() == list(range(tokens))
    x = torch.randn(batch, *map_size, 3)
    assert torch.equal(layout.restore(layout.arrange(x)), x)
    assert torch.equal(layout.arrange(x), x.flatten(0, 2)[layout.order])
    per_image = torch.arange(batch)[:, None, None, None].expand(*x.shape[:3], 1)
    assert torch.equal(layout.arrange(per_image)[:, 0], layout.image)


@pytest.mark.parametrize(("batch", "map_size", "size"), SHAPES)
def test_each_window_has_the_real_tokens_of_the_plain_form(
    batch: int, map_size: tuple[int, int], size: int
) -> None:
    layout = layout_of(batch, map_size, size)
    names = 1 + torch.arange(batch * map_size[0] * map_size[1]).view(batch, *map_size, 1)
    if size:
        plain = [set(window.tolist()) - {0} for window in split_windows(names, size).flatten(1)]
    else:
        plain = [set(image.tolist()) for image in names.flatten(1)]
    ordered = layout.arrange(names)[:, 0]
    starts = layout.starts.tolist()
    ours = [set(ordered[a:b].tolist()) for a, b in zip(starts[:-1], starts[1:], strict=True)]
    assert sorted(map(sorted, ours)) == sorted(map(sorted, plain))
    assert layout.longest == max(map(len, plain))
    # Groups: dense batches, and the padding that the plain form gives each of their windows.
    lengths = [group.tokens for group in layout.groups for _ in range(group.windows)]
    assert [len(window) for window in ours] == lengths
    assert len(layout.groups) <= 4
    for group, places in layout.slices():
        padded = size * size - group.tokens if size else 0
        assert group.padded == padded
        assert layout.log_padded[places].exp().round().unique().tolist() == [padded]


def test_rotary_tables_restart_in_every_window() -> None:
    cos, sin = rotary_tables(8, 4)
    layout = WindowLayout.make(2, (6, 9), 4, (cos, sin), CPU)
    row = torch.arange(6)[:, None].expand(6, 9) % 4
    column = torch.arange(9).expand(6, 9) % 4
    position = (row * 4 + column)[None, ..., None].expand(2, -1, -1, -1)
    position = layout.arrange(position)[:, 0]
    assert layout.cos is not None and layout.sin is not None
    assert torch.equal(layout.cos[:, 0], cos[position])
    assert torch.equal(layout.sin[:, 0], sin[position])


def test_a_plan_moves_tokens_only_where_the_windows_change() -> None:
    rope = RotaryEmbedding2d(8, 4), RotaryEmbedding2d(8, 5)
    windows = [(4, rope[0]), (4, rope[0]), (5, rope[1]), (4, rope[0])]
    plan = TokenPlan.make(2, (5, 9), windows, CPU)
    assert [move is None for move in plan.moves] == [False, True, False, False]
    assert plan.layouts[0] is plan.layouts[1] is plan.layouts[3]
    x = torch.randn(2, 5, 9, 3)
    tokens = x.flatten(0, 2)
    for layout, move in zip(plan.layouts, plan.moves, strict=True):
        tokens = tokens if move is None else tokens[move]
        assert torch.equal(tokens, layout.arrange(x))
