"""The ViT's fast form is its plain form: values, gradients, checkpointing, compilation, tracing."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from small_vit import small_vit
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from streampetr_vit.modeling.backbone import eva02_vit
from streampetr_vit.modeling.backbone.layers import SwiGLU
from streampetr_vit.modeling.backbone.selective_checkpoint import _policy
from streampetr_vit.modeling.backbone.token_plan import MAX_PLANS
from streampetr_vit.modeling.ops.linear import ONEDNN_PRODUCT

PRODUCTS = {
    torch.ops.aten.mm,
    torch.ops.aten.addmm,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    ONEDNN_PRODUCT,
}
FORMS: dict[str, dict[str, Any]] = {
    "as published": {},
    "whole map": {"img_size": 80, "global_window_size": 0},
    "no bias of values": {"qkv_bias": False},
    "norm of the heads": {"subln": True},
    "no rotation": {"rope": False},
    "no positions": {"use_abs_pos": False},
    "bottlenecks": {"residual_block_indexes": [1, 2]},
}


@pytest.mark.parametrize("changes", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("with_grad", [False, True], ids=["inference", "training"])
def test_the_fast_form_is_the_plain_form(changes: dict[str, Any], with_grad: bool) -> None:
    width = 80 if "global_window_size" in changes else 208
    images = torch.randn(3, 3, 80, width, generator=torch.Generator().manual_seed(0)).double()
    runs = []
    for xattn in (False, True):
        vit = small_vit(**changes, xattn=xattn, drop_path_rate=0.5).double().train(with_grad)
        for index, parameter in enumerate(vit.parameters()):  # biases that are not 0
            generator = torch.Generator().manual_seed(index)
            draw = 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.add_(draw)
        torch.manual_seed(5)  # of drop path
        with torch.set_grad_enabled(with_grad):
            out = vit(images)["last_feat"]
        if with_grad:
            out.square().mean().backward()
        runs.append([out, *([p.grad for p in vit.parameters()] if with_grad else [])])
    for plain, fast in zip(*runs, strict=True):
        torch.testing.assert_close(fast, plain, atol=1e-7, rtol=1e-6)  # rotary tables are float32


def test_the_plan_of_a_size_is_made_once_and_old_ones_are_forgotten() -> None:
    vit = small_vit().eval()
    with torch.no_grad():
        for width in (80, 96, 80):
            vit(torch.zeros(1, 3, 80, width))
        first = dict(vit._plans)
        assert len(first) == 2
        for tokens in range(7, 7 + MAX_PLANS):
            vit(torch.zeros(1, 3, 80, 16 * tokens))
    assert len(vit._plans) == MAX_PLANS
    assert not set(first) & set(vit._plans)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["torch", "oneDNN"])
def test_selective_checkpointing_recomputes_no_product_and_no_attention(dtype: torch.dtype) -> None:
    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            self.count += func.overloadpacket in PRODUCTS
            return func(*args, **(kwargs or {}))

    images = torch.randn(4, 3, 80, 208, generator=torch.Generator().manual_seed(0)).to(dtype)
    products, gradients = {}, {}
    for policy in (False, True, "selective"):
        vit = small_vit(use_act_checkpoint=policy).to(dtype).train()
        out = vit(images)["last_feat"]
        with Products() as counted:
            out.square().mean().backward()
        products[policy] = counted.count
        gradients[policy] = [parameter.grad for parameter in vit.parameters()]
    assert products[False] == products["selective"] < products[True]
    for policy in (True, "selective"):
        for ours, plain in zip(gradients[policy], gradients[False], strict=True):
            torch.testing.assert_close(ours, plain)


def test_choices_that_do_not_exist_are_errors() -> None:
    with pytest.raises(ValueError, match="use_act_checkpoint='blocks' must be False, True"):
        small_vit(use_act_checkpoint="blocks")
    with pytest.raises(ValueError, match="xattn='flash' must be False"):
        small_vit(xattn="flash")


def test_a_block_compiles_as_one_graph() -> None:
    vit = small_vit().eval()
    images = torch.randn(2, 3, 80, 208, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = vit(images)["last_feat"]
        for block in vit.blocks:
            block.compile(backend="eager", fullgraph=True)
        torch.testing.assert_close(vit(images)["last_feat"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("pad_to", [1, 16])
@pytest.mark.parametrize("with_grad", [False, True])
def test_the_fused_mlp_is_the_plain_one(pad_to: int, with_grad: bool) -> None:
    mlp = SwiGLU(16, 43, partial(nn.LayerNorm, eps=1e-6)).double()
    x = torch.randn(1500, 16, generator=torch.Generator().manual_seed(0)).double()
    with torch.set_grad_enabled(with_grad):
        fused = mlp.fused(x) if pad_to == 1 else mlp._fused(x, pad_to)
    torch.testing.assert_close(fused, mlp(x), atol=1e-12, rtol=1e-10)
    if with_grad:
        parameters = list(mlp.parameters())
        for a, b in zip(
            torch.autograd.grad(fused.square().sum(), parameters),
            torch.autograd.grad(mlp(x).square().sum(), parameters),
            strict=True,
        ):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_a_plan_made_in_inference_mode_serves_training() -> None:
    vit, images = small_vit(), torch.randn(1, 3, 80, 80)
    with torch.inference_mode():
        vit.eval()(images)
    vit.train()(images)["last_feat"].sum().backward()
    assert len(vit.plans) == 1


def test_a_tracers_stand_ins_are_not_remembered() -> None:
    vit = small_vit().eval()
    with FakeTensorMode(allow_non_fake_inputs=True):
        vit(torch.empty(1, 3, 80, 80))
    assert not vit.plans
    assert type(vit(torch.zeros(1, 3, 80, 80))["last_feat"]) is Tensor


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_no_images_and_tracing_give_maps_as_before() -> None:
    vit = small_vit().eval()
    assert vit(torch.zeros(0, 3, 80, 96))["last_feat"].shape == (0, 64, 5, 6)
    images = torch.randn(4, 3, 80, 208, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        traced = torch.jit.trace(vit, images, strict=False)  # its output is a dict
        torch.testing.assert_close(traced(images)["last_feat"], vit(images)["last_feat"])


def test_the_kernel_is_chosen_for_the_precision_of_autocast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(eva02_vit, "choose_kernel", lambda *a: asked.append(a) or "math")
    vit = small_vit(xattn="sdpa").eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        vit(torch.zeros(1, 3, 80, 80))
    vit(torch.zeros(1, 3, 80, 80))
    cpu = torch.device("cpu")
    assert asked == [("sdpa", cpu, torch.bfloat16, False), ("sdpa", cpu, torch.float32, True)]


def test_selective_checkpointing_knows_every_fused_attention_of_this_torch() -> None:
    """Those of GPUs too, which no test on a CPU runs."""
    names = [name.removeprefix("aten::") for name in torch._C._dispatch_get_all_op_names()]
    fused = {
        name
        for name in names
        if name.startswith("_scaled_dot_product_") and name.endswith(("attention", "for_cpu"))
    }
    fused -= {name for name in fused if "math" in name}  # made of other operations
    assert "_scaled_dot_product_flash_attention" in fused
    for name in fused:
        operation = getattr(torch.ops.aten, name).default
        assert _policy(None, operation) == CheckpointPolicy.MUST_SAVE, name
    assert _policy(None, torch.ops.aten.add.Tensor) == CheckpointPolicy.PREFER_RECOMPUTE


def test_selective_checkpointing_goes_with_weights_that_autocast_has_cast() -> None:
    vit = small_vit(use_act_checkpoint="selective").train()
    images = torch.randn(1, 3, 80, 80, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        vit(images)
        vit(images)["last_feat"].float().sum().backward()
    assert all(p.grad is not None for p in vit.parameters())
