"""What the parity tests of both backbone forms share: recording a run and comparing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import golden
import torch
from detectron2.modeling.backbone import Backbone
from torch import Tensor

ATOL = 5e-5  # on outputs of magnitude 4 to 13; the reference's own float32 noise is 1.4e-5


def record_intermediates(backbone: Backbone) -> dict[str, Tensor]:
    """A dict that a forward pass fills with maps, under the golden files' names."""
    seen: dict[str, Tensor] = {}

    def as_map(tokens: Tensor, inputs: tuple[Any, ...]) -> Tensor:
        """Of the fast form, whose blocks see tokens in the order of their layout."""
        return inputs[1].restore(tokens) if len(inputs) > 1 else tokens

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.__setitem__(name, as_map(output, inputs))

    vit = backbone.net
    vit.patch_embed.register_forward_hook(keep("patch_embed"))
    vit.blocks[0].register_forward_pre_hook(
        lambda module, inputs: seen.__setitem__("block0_in", as_map(inputs[0], inputs))
    )
    for index, block in enumerate(vit.blocks):
        block.register_forward_hook(keep(f"block{index}_out"))
    return seen


def check_run(
    backbone: Backbone, case: dict[str, Any], expected_gradients: dict[str, Tensor]
) -> None:
    """Compares outputs with and without gradients, intermediates, and all recorded gradients."""
    names = case["outputs"]["names"]
    with torch.no_grad():  # another path through the fast form
        outputs = backbone(case["inputs"]["img"])
    for name in names:
        golden.assert_close(outputs[name], case["outputs"][name], name, atol=ATOL)

    seen = record_intermediates(backbone)
    images = case["inputs"]["img"].clone().requires_grad_()
    outputs = backbone(images)

    assert list(outputs) == names
    for name in names:
        golden.assert_close(outputs[name], case["outputs"][name], name, atol=ATOL)
    for name, expected in case["outputs"].get("inter", {}).items():
        golden.assert_close(seen[name], expected, name, atol=ATOL)

    products = [outputs[name] * case["inputs"]["cotangents"][name] for name in names]
    scalar = torch.stack([product.sum() for product in products]).sum()
    magnitude = sum(float(product.detach().abs().sum()) for product in products)
    expected_scalar = case["losses"]["sum_out_times_cotangent"]
    golden.assert_close(scalar, expected_scalar, "scalar", atol=1e-6 * magnitude)

    scalar.backward()
    assert images.grad is not None
    if "img" in case["grads"]:  # the committed subset has no room for it
        golden.assert_close_relative_to_max(images.grad, case["grads"]["img"], "images")
    assert len(expected_gradients) == len(case["grads"]["params"]) > 0
    parameters = dict(backbone.named_parameters())
    for name, expected in expected_gradients.items():
        golden.assert_close_relative_to_max(parameters[name].grad, expected, name)
