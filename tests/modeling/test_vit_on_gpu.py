"""The ViT's fast form on a CUDA device, by each kernel at hand. Skipped where there is none."""

from __future__ import annotations

import pytest
import torch

from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.ops.kernel_choice import why_not

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def make_vit(xattn: bool | str) -> ViT:
    """Windows of 4 and 5 in a map of 5 x 13, head dimension 32, hidden width 170."""
    torch.manual_seed(0)
    return ViT(
        img_size=80,
        embed_dim=64,
        depth=3,
        num_heads=2,
        window_size=4,
        global_window_size=5,
        window_block_indexes=[0, 1],
        xattn=xattn,
    ).cuda()


@pytest.mark.parametrize("kernel", ["sdpa", "varlen", "flash-attn", "xformers"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_each_kernel_equals_the_plain_form(kernel: str, dtype: torch.dtype) -> None:
    problem = why_not(kernel, torch.device("cuda", 0), dtype)
    if problem is not None:
        pytest.skip(problem)
    images = torch.randn(2, 3, 80, 208, generator=torch.Generator().manual_seed(1)).cuda()
    runs = []
    for xattn in (False, kernel):
        vit = make_vit(xattn)
        exact = xattn is False
        with torch.autocast("cuda", dtype, enabled=not exact):
            with torch.no_grad():
                inference = vit(images)["last_feat"]
            training = vit(images)["last_feat"]
        training.float().square().mean().backward()
        gradients = [parameter.grad for parameter in vit.parameters()]
        runs.append([inference, training, *gradients])
    for plain, fast in zip(*runs, strict=True):
        difference = (fast.float() - plain.float()).norm() / plain.float().norm().clamp(min=1e-6)
        assert float(difference) < 0.03
