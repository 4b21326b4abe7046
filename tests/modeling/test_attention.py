"""The attention function: every kernel against the formula in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from streampetr_vit.modeling.ops.attention import KERNELS, attention

KERNEL_NAMES = sorted(set(KERNELS) - {"xformers"})  # which needs a GPU


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randn(2, 3, count, 8, generator=generator, dtype=torch.float64).to(dtype)

    return draw(5), draw(7), draw(7)


def reference(query: Tensor, key: Tensor, value: Tensor, extra_logits: Tensor) -> Tensor:
    """The formula, query by query."""
    logits = torch.einsum("bhnd,bhmd->bhnm", query, key) / 8**0.5 + extra_logits
    weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return torch.einsum("bhnm,bhmd->bhnd", weights, value)


def masks() -> dict[str, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    bias = torch.randn(2, 1, 5, 7, generator=generator, dtype=torch.float64)
    key_bias = torch.randn(2, 1, 1, 7, generator=generator, dtype=torch.float64)
    blocked = torch.rand(1, 3, 5, 7, generator=generator) < 0.4
    blocked[..., 2] = False  # every query keeps a key
    return {
        "plain": {},
        "bias": {"bias": bias},
        "blocked": {"blocked": blocked},
        "bias and blocked": {"bias": bias, "blocked": blocked},
        "broadcast bias and blocked": {"bias": key_bias, "blocked": blocked},
    }


@pytest.mark.parametrize("name", list(masks()))
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_kernel_agrees_with_the_formula_and_its_gradients(kernel: str, name: str) -> None:
    mask = masks()[name]
    extra = mask.get("bias", torch.zeros((), dtype=torch.float64))
    if "blocked" in mask:
        extra = extra + torch.where(mask["blocked"], -torch.inf, 0.0)
    arguments = [x.requires_grad_() for x in inputs()]
    expected = reference(*arguments, extra)
    actual = attention(*arguments, **mask, kernel=kernel)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)
    cotangent = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view_as(expected)
    for a, b in zip(
        torch.autograd.grad(actual, arguments, cotangent),
        torch.autograd.grad(expected, arguments, cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_blocked_keys_have_no_influence(kernel: str) -> None:
    query, key, value = inputs(torch.float32)
    blocked = torch.zeros(5, 7, dtype=torch.bool)
    blocked[:, 4:] = True
    out = attention(query, key, value, blocked=blocked, kernel=kernel)
    key[:, :, 4:], value[:, :, 4:] = 1e4, 1e4
    assert torch.equal(out, attention(query, key, value, blocked=blocked, kernel=kernel))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_half_precision_stays_half_and_close(kernel: str, dtype: torch.dtype) -> None:
    half = inputs(dtype)
    out = attention(*half, bias=masks()["bias"]["bias"].to(dtype), kernel=kernel)
    assert out.dtype == dtype
    exact = attention(
        *(x.double() for x in half),
        bias=masks()["bias"]["bias"].to(dtype).double(),
        kernel="math",
    )
    assert float((out.double() - exact).abs().max()) < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_dropout_zeroes_weights_and_rescales_the_rest(kernel: str) -> None:
    query = torch.zeros(1, 1, 64, 4)
    key = torch.zeros(1, 1, 16, 4)  # uniform weights of 1 / 16
    value = torch.eye(16)[None, None]  # the output is the weights
    torch.manual_seed(0)
    weights = attention(query, key, value, dropout_p=0.25, kernel=kernel)
    kept = weights > 0
    torch.testing.assert_close(weights[kept], torch.full_like(weights[kept], 1 / 16 / 0.75))
    assert 0.6 < float(kept.float().mean()) < 0.9
    assert bool((attention(query, key, value, kernel=kernel) > 0).all())


def test_unknown_kernel_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'flash'.*math.*sdpa"):
        attention(*inputs(), kernel="flash")


@pytest.mark.parametrize("kernel", KERNEL_NAMES)
def test_a_float_mask_is_not_taken_for_blocked(kernel: str) -> None:
    with pytest.raises(TypeError, match="bool mask.*torch.float32.*bias"):
        attention(*inputs(), blocked=torch.zeros(5, 7), kernel=kernel)
