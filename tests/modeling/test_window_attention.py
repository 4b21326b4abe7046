"""Windows of a token map, and attention inside them with unmasked padding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from streampetr_vit.modeling.backbone.rope import RotaryEmbedding2d, rotate_pairs
from streampetr_vit.modeling.backbone.window_attention import WindowAttention
from streampetr_vit.modeling.backbone.windows import WindowLayout, merge_windows, split_windows


@pytest.mark.parametrize(
    ("map_size", "window", "count"),
    [  # rounded up: height / window times width / window
        ((20, 50), 16, 8),
        ((20, 50), 20, 3),
        ((50, 100), 16, 28),
        ((50, 100), 50, 2),
        ((40, 100), 16, 21),
        ((40, 100), 40, 3),
        ((32, 88), 16, 12),
        ((32, 88), 32, 3),
        ((16, 44), 16, 3),
        ((40, 40), 16, 9),
    ],
)
def test_window_counts(map_size: tuple[int, int], window: int, count: int) -> None:
    windows = split_windows(torch.empty(2, *map_size, 1, device="meta"), window)
    assert windows.shape == (2 * count, window, window, 1)


def test_windows_are_row_major_and_zero_padded_at_the_bottom_right() -> None:
    row, column = torch.meshgrid(torch.arange(1, 4), torch.arange(1, 6), indexing="ij")
    tokens = (10 * row + column)[None, :, :, None].float()  # 3 x 5, all positive
    windows = split_windows(tokens, 2)[..., 0]
    assert windows.tolist() == [
        [[11, 12], [21, 22]],
        [[13, 14], [23, 24]],
        [[15, 0], [25, 0]],
        [[31, 32], [0, 0]],
        [[33, 34], [0, 0]],
        [[35, 0], [0, 0]],
    ]


def test_real_tokens_per_window_at_800x320() -> None:
    real = split_windows(torch.ones(1, 20, 50, 1), 16).sum((1, 2, 3))
    assert real.tolist() == [256, 256, 256, 32, 64, 64, 64, 8]
    assert split_windows(torch.ones(1, 20, 50, 1), 20).sum((1, 2, 3)).tolist() == [400, 400, 200]


@pytest.mark.parametrize("map_size", [(4, 8), (5, 13), (3, 2)])
def test_merge_inverts_split(map_size: tuple[int, int]) -> None:
    x = torch.randn(3, *map_size, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(merge_windows(split_windows(x, 4), map_size), x)


Form = Callable[[WindowAttention, Tensor], Tensor]


def attention_module(window_size: int, table_size: int, **options: object) -> WindowAttention:
    torch.manual_seed(0)
    module = WindowAttention(
        32, 2, window_size, RotaryEmbedding2d(16, table_size), **options
    ).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    return module


def attend_to(module: WindowAttention, x: Tensor, padded_keys: int) -> Tensor:
    """Attention of tokens x (n, C) to themselves and to explicit padding keys.

    The tokens take the first n rows of the rotary table. A padding key is k = 0, v = v_bias, which
    is what a zero token becomes.
    """
    tokens, dim, heads = len(x), 32, 2

    def project(name: str, bias: Tensor | float) -> Tensor:
        out = x @ getattr(module, name).weight.T + bias
        return out.view(tokens, heads, dim // heads).transpose(0, 1)  # (h, n, D)

    cos, sin = module.rope.cos[:tokens], module.rope.sin[:tokens]
    query = rotate_pairs(project("q_proj", module.q_bias), cos, sin)
    key = rotate_pairs(project("k_proj", 0.0), cos, sin)
    value = project("v_proj", module.v_bias)
    padding_value = module.v_bias.view(heads, 1, -1).expand(-1, padded_keys, -1)
    key = torch.cat((key, key.new_zeros(heads, padded_keys, dim // heads)), 1)
    value = torch.cat((value, padding_value), 1)
    weights = (query @ key.transpose(1, 2) / (dim // heads) ** 0.5).softmax(-1)
    return module.proj((weights @ value).transpose(0, 1).flatten(1))


def padded(module: WindowAttention, x: Tensor) -> Tensor:
    """The plain form."""
    return module(x)


def without_padding(module: WindowAttention, x: Tensor) -> Tensor:
    """The fast form, from map to map."""
    assert module.rope is not None
    tables = (module.rope.cos, module.rope.sin)
    map_size = (x.shape[1], x.shape[2])
    layout = WindowLayout.make(len(x), map_size, module.window_size, tables, x.device)
    return layout.restore(module.attend(layout.arrange(x), layout, "sdpa"))


both_forms = pytest.mark.parametrize("form", [padded, without_padding])


@both_forms
def test_padding_enters_the_softmax_with_zero_keys_and_bias_values(form: Form) -> None:
    # A map of 2 full rows in a window of 4: tokens keep their places, 8 padding keys follow.
    module = attention_module(window_size=4, table_size=4)
    x = torch.randn(1, 2, 4, 32, generator=torch.Generator().manual_seed(1)).double()
    out = form(module, x).view(8, 32)
    torch.testing.assert_close(out, attend_to(module, x.view(8, 32), 8), atol=1e-10, rtol=1e-10)
    masked = attend_to(module, x.view(8, 32), 0)
    assert not torch.allclose(out, masked, atol=0.1)  # masking the padding is another function


@both_forms
def test_a_window_of_the_map_equals_the_whole_map(form: Form) -> None:
    whole = attention_module(window_size=0, table_size=5)
    window = attention_module(window_size=5, table_size=5)
    x = torch.randn(2, 5, 5, 32, generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(form(whole, x), form(window, x))


@pytest.mark.parametrize("options", [{}, {"qkv_bias": False}, {"subln": True}])
def test_windows_do_not_see_each_other(options: dict[str, bool]) -> None:
    module = attention_module(window_size=4, table_size=4, **options)
    x = torch.randn(1, 4, 8, 32, generator=torch.Generator().manual_seed(1)).double()
    changed = x.clone()
    changed[:, :, 4:] += 1.0
    assert torch.equal(module(x)[:, :, :4], module(changed)[:, :, :4])
    assert not torch.allclose(module(x)[:, :, 4:], module(changed)[:, :, 4:])
