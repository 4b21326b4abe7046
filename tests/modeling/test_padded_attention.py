"""Window attention without padding against the plain form with it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.backbone import padded_attention
from streampetr_vit.modeling.backbone.padded_attention import window_attention
from streampetr_vit.modeling.backbone.windows import WindowLayout, merge_windows, split_windows
from streampetr_vit.modeling.ops import ragged_attention
from streampetr_vit.modeling.ops.attention import attention

HEADS, DIM, CPU = 2, 8, torch.device("cpu")
SHAPES = [(2, (8, 12), 4), (2, (9, 10), 4), (1, (2, 3), 4), (2, (5, 7), 0)]


def tensors(batch: int, map_size: tuple[int, int]) -> list[Tensor]:
    """Query, key, value (B, H, W, h, D) and the value of a padded token (h, D), float64."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(batch, *map_size, HEADS, DIM)] * 3 + [(HEADS, DIM)]
    return [2 * torch.randn(s, generator=generator, dtype=torch.float64) for s in sizes]


def plain(query: Tensor, key: Tensor, value: Tensor, pad_value: Tensor, size: int) -> Tensor:
    """The specification: padded keys are zero, padded values are `pad_value`, nothing is masked."""
    map_size = (query.shape[1], query.shape[2])
    real = split_windows(torch.ones(*query.shape[:3], 1, dtype=torch.float64), size)
    cut = [split_windows(x.flatten(3), size) for x in (query, key, value)]  # (W, T, T, h * D)
    cut[2] = torch.where(real.bool(), cut[2], pad_value.flatten())
    heads = [x.flatten(1, 2).unflatten(-1, (HEADS, DIM)).transpose(1, 2) for x in cut]
    out = attention(*heads, kernel="math").transpose(1, 2).flatten(2)  # (W, T * T, h * D)
    out = merge_windows(out.unflatten(1, (size, size)), map_size)
    return out.unflatten(-1, (HEADS, DIM))


def expected_of(x: list[Tensor], size: int) -> Tensor:
    if size:
        return plain(*x, size)
    q, k, v = (t.flatten(1, 2).transpose(1, 2) for t in x[:3])  # one window, no padding
    out = attention(q, k, v, kernel="math").transpose(1, 2)
    return out.unflatten(1, x[0].shape[1:3])


def ragged_by_hand(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int
) -> tuple[Tensor, Tensor]:
    """What a ragged kernel does, window by window."""
    outs, lses = [], []
    edges = starts.tolist()
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        assert 0 < b - a <= longest
        logits = torch.einsum("nhd,mhd->nhm", query[a:b], key[a:b]) / math.sqrt(DIM)
        outs.append(torch.einsum("nhm,mhd->nhd", logits.softmax(-1), value[a:b]))
        lses.append(logits.logsumexp(-1))
    return torch.cat(outs), torch.cat(lses)


@pytest.mark.parametrize(("batch", "map_size", "size"), SHAPES)
@pytest.mark.parametrize("kernel", ["math", "sdpa", "by hand"])
def test_inference_equals_the_plain_form(
    batch: int,
    map_size: tuple[int, int],
    size: int,
    kernel: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ragged_attention.RAGGED_KERNELS, "by hand", ragged_by_hand)
    x = tensors(batch, map_size)
    layout = WindowLayout.make(batch, map_size, size, None, CPU)
    with torch.no_grad():
        flat = [layout.arrange(t) for t in x[:3]]
        out = window_attention(*flat, x[3], layout, kernel)
    tolerance = 1e-6 if kernel == "by hand" else 1e-12  # its gate is float32, as on a GPU
    torch.testing.assert_close(
        layout.restore(out.flatten(1)).view_as(x[0]),
        expected_of(x, size),
        atol=tolerance,
        rtol=tolerance,
    )


@pytest.mark.parametrize("told", [True, False], ids=["kernel tells LSE", "kernel does not"])
def test_both_ways_of_inference_agree(told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not told:
        monkeypatch.setattr(padded_attention, "attention_with_lse", lambda *a, **k: None)
    x = tensors(2, (9, 10))
    layout = WindowLayout.make(2, (9, 10), 4, None, CPU)
    with torch.no_grad():
        out = window_attention(*(layout.arrange(t) for t in x[:3]), x[3], layout, "sdpa")
    torch.testing.assert_close(
        layout.restore(out.flatten(1)).view_as(x[0]), plain(*x, 4), atol=1e-12, rtol=1e-12
    )


@pytest.mark.parametrize(("batch", "map_size", "size"), SHAPES)
@pytest.mark.parametrize("kernel", ["math", "sdpa"])
def test_gradients_equal_those_of_the_plain_form(
    batch: int, map_size: tuple[int, int], size: int, kernel: str
) -> None:
    x = [t.requires_grad_() for t in tensors(batch, map_size)]
    layout = WindowLayout.make(batch, map_size, size, None, CPU)
    out = window_attention(*(layout.arrange(t) for t in x[:3]), x[3], layout, kernel)
    out = layout.restore(out.flatten(1)).view_as(x[0])
    expected = expected_of(x, size)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out)
    padded = any(group.padded for group in layout.groups)
    wanted = x if padded else x[:3]  # without padding its value plays no part
    for a, b in zip(
        torch.autograd.grad(out, wanted, cotangent),
        torch.autograd.grad(expected, wanted, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_without_a_value_bias_padded_values_are_zero() -> None:
    x = tensors(1, (3, 5))
    layout = WindowLayout.make(1, (3, 5), 4, None, CPU)
    flat = [layout.arrange(t) for t in x[:3]]
    none = window_attention(*flat, None, layout)
    assert torch.equal(none, window_attention(*flat, torch.zeros_like(x[3]), layout))
    assert not torch.allclose(none, window_attention(*flat, x[3], layout))


def test_half_precision_keeps_its_dtype() -> None:
    x = [t.bfloat16() for t in tensors(2, (9, 10))]
    layout = WindowLayout.make(2, (9, 10), 4, None, CPU)
    flat = [layout.arrange(t) for t in x[:3]]
    with torch.no_grad():
        out = window_attention(*flat, x[3].float(), layout)
    assert out.dtype == torch.bfloat16
    expected = layout.arrange(plain(*(t.double() for t in x), 4))
    torch.testing.assert_close(out.double(), expected, atol=0.05, rtol=0.05)


def test_log_sum_exps_of_either_orientation_are_taken_and_others_refused() -> None:
    query = torch.zeros(5, HEADS, DIM)
    lse = torch.arange(10.0).view(HEADS, 5)
    assert torch.equal(ragged_attention._token_first(lse, query), lse.t())
    assert torch.equal(ragged_attention._token_first(lse.t(), query), lse.t())
    with pytest.raises(RuntimeError, match=r"shape \(1, 2, 5\) for 2 heads and 5 tokens"):
        ragged_attention._token_first(lse[None], query)
