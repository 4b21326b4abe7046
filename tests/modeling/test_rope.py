"""The rotary embedding: anchors, its invariances, and tables that nothing can spoil."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d, rotary_tables


@pytest.mark.parametrize(
    ("table", "token", "channel", "value"),
    [
        ("cos", 21, 0, 0.69670671),
        ("cos", 21, 32, 0.69670671),
        ("cos", 21, 2, 0.90050232),
        ("cos", 21, 30, 1.0),
        ("cos", 21, 31, 1.0),
        ("sin", 399, 0, 0.48639885),
        ("sin", 399, 2, 0.76894522),
        ("sin", 399, 31, 0.00270298),
        ("sin", 399, 32, 0.48639885),
    ],
)
def test_table_anchors_of_a_20x20_grid(table: str, token: int, channel: int, value: float) -> None:
    cos, sin = rotary_tables(head_dim=64, size=20)
    both = {"cos": cos, "sin": sin}[table]
    assert both.shape == (400, 32) and both.dtype == torch.float32
    assert float(both[token, channel // 2]) == pytest.approx(value, abs=2e-7)


def test_rotation_is_an_isometry_and_leaves_the_origin() -> None:
    rope = RotaryEmbedding2d(head_dim=16, size=5)
    x = torch.randn(2, 3, 25, 16, generator=torch.Generator().manual_seed(0))
    rotated = rope(x)
    torch.testing.assert_close(rotated.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(rotated[:, :, 0], x[:, :, 0])


def test_logits_depend_on_relative_position_only() -> None:
    rope = RotaryEmbedding2d(head_dim=16, size=6)
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 16, generator=generator)
    rotated_query, rotated_key = (rope(x.expand(36, 16)).view(6, 6, 16) for x in (query, key))
    for row, column in ((0, 0), (1, 3), (2, 2)):
        moved = rotated_query[row + 1, column + 2] @ rotated_key[row, column]
        torch.testing.assert_close(moved, rotated_query[1, 2] @ rotated_key[0, 0])
    one_row, one_column = (rotated_query[1, 0], rotated_query[0, 1])
    assert not torch.allclose(one_row @ rotated_key[0, 0], one_column @ rotated_key[0, 0])


def test_rows_turn_the_first_half_and_columns_the_second() -> None:
    rope = RotaryEmbedding2d(head_dim=16, size=4)
    x = torch.ones(16, 16)
    grid = rope(x).view(4, 4, 16)
    assert torch.equal(grid[0, 3, :8], x[0, :8]) and not torch.equal(grid[0, 3, 8:], x[0, 8:])
    assert torch.equal(grid[3, 0, 8:], x[0, 8:]) and not torch.equal(grid[3, 0, :8], x[0, :8])


def test_half_precision_is_rotated_in_float32() -> None:
    rope = RotaryEmbedding2d(head_dim=16, size=16)
    x = torch.randn(256, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    rotated = rope(x)
    assert rotated.dtype == torch.bfloat16
    assert torch.equal(rotated, rope(x.float()).bfloat16())


def test_casts_and_meta_construction_do_not_spoil_the_tables() -> None:
    expected = rotary_tables(head_dim=16, size=5)
    with torch.device("meta"):
        from_meta = nn.Sequential(RotaryEmbedding2d(head_dim=16, size=5))
    assert from_meta[0].cos.is_meta
    for module in (
        nn.Sequential(RotaryEmbedding2d(head_dim=16, size=5)).half(),
        nn.Sequential(RotaryEmbedding2d(head_dim=16, size=5)).double(),
        from_meta.to_empty(device="cpu"),
    ):
        assert torch.equal(module[0].cos, expected[0])
        assert torch.equal(module[0].sin, expected[1])
        assert not module.state_dict()


@pytest.mark.parametrize("head_dim", [0, 6, 30])
def test_head_dim_that_does_not_pair_is_refused(head_dim: int) -> None:
    with pytest.raises(ValueError, match=f"head_dim={head_dim} must be a positive multiple of 4"):
        rotary_tables(head_dim, size=4)


def test_empty_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="size=0 and pretrain_size=16 must be positive"):
        rotary_tables(16, size=0)
