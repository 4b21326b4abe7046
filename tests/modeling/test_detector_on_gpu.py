"""The detector on a CUDA device equals the one on the CPU. Skipped where there is none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from tiny_detector import make_detector, make_repdetr3d, make_sample

from streampetr_vit.modeling.detector import StreamPETR
from streampetr_vit.structures import Frame

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


DETECTORS = {
    "streampetr": make_detector,
    "repdetr3d": make_repdetr3d,
    "repdetr3d gather": partial(make_repdetr3d, sampling_kernel="gather"),
}


@pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)
def test_a_stream_gives_the_same_codes_and_memory(make: Callable[[], StreamPETR]) -> None:
    on_cpu, on_gpu = make().eval(), make().eval().cuda()
    memories = [on_cpu.empty_memory(1), on_gpu.empty_memory(1)]
    for time in range(3):
        frame = Frame.collate([make_sample(time)])
        with torch.no_grad():
            expected, memories[0] = on_cpu.step(frame, memories[0])
            found, memories[1] = on_gpu.step(frame.to("cuda"), memories[1])
        torch.testing.assert_close(found.codes.cpu(), expected.codes, atol=1e-2, rtol=1e-3)
        torch.testing.assert_close(found.logits.cpu(), expected.logits, atol=1e-3, rtol=1e-3)
        times = memories[1].time_s.cpu()
        torch.testing.assert_close(times, memories[0].time_s, atol=1e-6, rtol=0)


@pytest.mark.parametrize("make", DETECTORS.values(), ids=DETECTORS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_training_step_under_autocast(dtype: torch.dtype, make: Callable[[], StreamPETR]) -> None:
    detector = make().train().cuda()
    with torch.autocast("cuda", dtype):
        losses, _ = detector.losses([make_sample(0), make_sample(0, "b")])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in detector.parameters())
