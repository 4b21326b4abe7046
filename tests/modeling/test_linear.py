"""Linear layers through oneDNN, and padded: torch's function and gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streampetr_vit.modeling.ops import linear as module
from streampetr_vit.modeling.ops.linear import Linear, linear, padded_linear

SHAPES = [(2, 60, 96), (300, 96), (96,)]  # of the input: two batch dimensions, one, none


def case(shape: tuple[int, ...], out: int = 130) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = (shape, (out, shape[-1]), (out,))
    return tuple(torch.randn(s, generator=generator) for s in sizes)  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts products through oneDNN."""
    counted: list[int] = []
    product = module.onednn_product

    def count(*arguments: Tensor) -> Tensor:
        counted.append(1)
        return product(*arguments)

    monkeypatch.setattr(module, "onednn_product", count)
    return counted


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN however little there is to do."""
    monkeypatch.setattr(module, "_WORTH_IT", 0)


needs_onednn = pytest.mark.skipif(not module.ONEDNN_USABLE, reason="no oneDNN on this processor")


@needs_onednn
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", SHAPES)
def test_onednn_gives_torchs_result(shape: tuple[int, ...], calls: list[int]) -> None:
    x, weight, bias = case(shape)
    for b in (bias, None):
        expected = functional.linear(x.double(), weight.double(), None if b is None else b.double())
        torch.testing.assert_close(linear(x, weight, b).double(), expected, atol=1e-4, rtol=1e-5)
    assert len(calls) == 2


@needs_onednn
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_bias", [True, False])
def test_onednn_gives_torchs_gradients(
    shape: tuple[int, ...], with_bias: bool, calls: list[int]
) -> None:
    tensors = [t for t in case(shape)[: 3 if with_bias else 2]]
    cotangent = torch.randn(*shape[:-1], 130, generator=torch.Generator().manual_seed(1))
    ours = [t.clone().requires_grad_() for t in tensors]
    exact = [t.double().requires_grad_() for t in tensors]
    linear(*ours).backward(cotangent)
    functional.linear(*exact).backward(cotangent.double())
    for a, b in zip(ours, exact, strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad.double(), b.grad, atol=1e-3, rtol=1e-5)
    assert len(calls) == 3


def test_everything_else_stays_with_torch(calls: list[int]) -> None:
    x, weight, bias = case((300, 96))
    linear(x.double(), weight.double(), bias.double())
    linear(x.bfloat16(), weight.bfloat16(), bias.bfloat16())
    linear(x[:2], weight, bias)  # too little work
    with torch.autocast("cpu", torch.bfloat16):
        assert linear(x, weight, bias).dtype == torch.bfloat16
    torch.compile(linear, backend="eager", fullgraph=True)(x, weight, bias)
    assert not calls


@pytest.mark.parametrize("with_bias", [True, False])
def test_padding_is_zeros_behind_the_same_numbers(with_bias: bool) -> None:
    x, weight, bias = case((300, 96), out=66)
    expected = linear(x, weight, bias if with_bias else None)
    found = padded_linear(x, weight, bias if with_bias else None, 16)
    assert found.shape == (300, 80) and not found[:, 66:].any()
    torch.testing.assert_close(found[:, :66], expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(padded_linear(x, weight, bias, 1), linear(x, weight, bias))


def test_the_layer_is_torchs_layer_with_another_product() -> None:
    ours, theirs = Linear(96, 130), torch.nn.Linear(96, 130)
    theirs.load_state_dict(ours.state_dict())
    x = case((300, 96))[0]
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-5)
