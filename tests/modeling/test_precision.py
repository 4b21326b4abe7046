"""Mixed precision: what is rounded, what is not, and how far the result moves."""

from __future__ import annotations

import pytest
import torch
from tiny_detector import make_detector, make_sample
from torch import Tensor

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.decoder.attention import MultiHeadAttention
from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.modeling.heads.outputs import HeadOutput
from streampetr_vit.modeling.ops.precision import autocast, half_precision_of
from streampetr_vit.modeling.temporal.memory import TemporalMemory
from streampetr_vit.structures import Frame

# Unit roundoff; the largest allowed distance of a result is a small multiple of it.
ROUNDOFF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16"}


@torch.no_grad()
def two_frames(
    detector: StreamPETR, dtype: torch.dtype | None
) -> tuple[list[HeadOutput], TemporalMemory]:
    """Outputs of a stream of two frames, under autocast to a type if given."""
    memory, outputs = detector.empty_memory(1), []
    for frame in (Frame.collate([make_sample(time)]) for time in range(2)):
        with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
            output, memory = detector.step(frame, memory)
        outputs.append(output)
    return outputs, memory


def distance(a: Tensor, b: Tensor) -> float:
    """Root mean square difference, as a share of the spread of `b`."""
    return float((a - b).square().mean().sqrt() / b.std())


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=NAMES.get)
def test_the_mixed_precision_detector_stays_near_float32(dtype: torch.dtype) -> None:
    """The image branch is rounded, geometry, time and the decoder are not."""
    detector = make_detector().eval()
    exact, _ = two_frames(detector, None)
    rounded, memory = two_frames(detector, dtype)
    # Of the first frame: in the second, rounded scores may swap which queries are propagated.
    for name in ("logits", "codes"):
        moved = distance(getattr(rounded[0], name), getattr(exact[0], name))
        assert 0 < moved < 8 * ROUNDOFF[dtype], name
    for value in (memory.time_s, memory.center_m, memory.pose):
        assert value.dtype == torch.float64 and value.isfinite().all()
    for value in (memory.embedding, memory.velocity_mps, rounded[1].codes):
        assert value.dtype == torch.float32 and value.isfinite().all()


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=NAMES.get)
def test_losses_are_float32_and_near_those_of_float32(dtype: torch.dtype) -> None:
    sample, losses = make_sample(0), []
    for enabled in (False, True):
        detector = make_detector().train()
        detector.grid_mask = None
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype, enabled=enabled):
            losses.append(detector.losses([sample])[0])
    exact, rounded = losses
    assert set(exact) == set(rounded)
    assert all(value.dtype == torch.float32 for value in rounded.values())
    assert any(not torch.equal(rounded[name], exact[name]) for name in exact)
    total, near = (float(sum(values.values()).detach()) for values in (exact, rounded))
    assert near == pytest.approx(total, rel=8 * ROUNDOFF[dtype])


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=NAMES.get)
def test_a_window_under_autocast_has_every_gradient(dtype: torch.dtype) -> None:
    """Autocast keeps rounded weights; those made without gradient must not be used again."""
    detector = make_detector().train()
    samples = [make_sample(time) for time in range(3)]
    with torch.autocast("cpu", dtype):
        losses, _ = detector.losses([samples])
    sum(losses.values()).backward()
    assert not [name for name, p in detector.named_parameters() if p.grad is None]


@pytest.mark.parametrize("dtype", ROUNDOFF, ids=NAMES.get)
def test_the_attention_core_has_a_precision_of_its_own(dtype: torch.dtype) -> None:
    """As in the published runs: float32 projections around a rounded softmax attention."""
    torch.manual_seed(0)
    exact = MultiHeadAttention(32, 4)
    rounded = MultiHeadAttention(32, 4, precision=NAMES[dtype])
    rounded.load_state_dict(exact.state_dict())
    query, key = torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    with torch.no_grad():
        a, b = exact(query, key, key), rounded(query, key, key)
    assert b.dtype == torch.float32
    assert 0 < distance(b, a) < 4 * ROUNDOFF[dtype]


def test_a_gpu_that_only_emulates_bfloat16_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As torch answers on a T4 or V100: it says yes unless it is asked for the real thing."""

    def is_bf16_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_bf16_supported)
    assert half_precision_of("cuda") == "fp16" and half_precision_of("cpu") == "bf16"
    with pytest.raises(InputError, match="this GPU has no bfloat16.*use 'fp16'"):
        autocast("bf16", "cuda")
    autocast("bf16", "cpu")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert half_precision_of("cuda") == "bf16"


def test_an_unknown_precision_is_named() -> None:
    with pytest.raises(InputError, match="'fp8' is unknown: allowed are 'float32', 'bf16', 'fp16'"):
        autocast("fp8", "cpu")
    with pytest.raises(ValueError, match="precision 'fp8' is unknown.*bf16.*float32.*fp16"):
        MultiHeadAttention(8, 2, precision="fp8")
