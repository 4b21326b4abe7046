"""Useful floating-point operations of a frame; multiply-add = 2, matrix products only.

The ViT's fast form computes what is useful and nothing more: no padded token, and attention over
the real pairs of each window. So torch's own counter gives the number, from one run on tensors
without content.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from streampetr_vit.benchmark.inputs import made_up_frame
from streampetr_vit.engine.config import instantiate_model
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.decoder.camera_sampling import CameraSampling
from streampetr_vit.modeling.ops.linear import ONEDNN_PRODUCT


def frame_tflop(
    cfg: DictConfig, image_size: tuple[int, int], cameras: int = 6, batch: int = 1
) -> dict[str, float]:
    """Useful TFLOP of one frame of a batch of streams.

    Args:
        cfg: the whole configuration.
        image_size: (height, width) of the pictures in pixels.
        cameras: of the rig.
        batch: streams.

    Returns:
        "backbone" (with pyramid and neck), "head" and "frame", their sum. What the head computes
        once for a rig is not in it.
    """
    with torch.device("meta"):
        model: Any = instantiate_model(cfg).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, ViT):
            module.plain = False
        if hasattr(module, "kernel"):
            # Interpolation is not counted, and "gather" has shapes that depend on what is seen.
            module.kernel = "grid_sample" if isinstance(module, CameraSampling) else "sdpa"
    frame = made_up_frame(image_size, cameras, 1)
    # Stand-ins of CPU tensors, and not of "meta" ones: a GPU's and a CPU's paths do the same work,
    # but only a CPU's attention without padded keys can be followed without running it.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cpu")
        size = model.padded_size(image_size)
        of_camera, features = _count(lambda: model.image_features(frame.images[:, :1]))
        one_map = isinstance(features, torch.Tensor)
        # (1, 1, C, h, w) -> (1, N, C, h, w): the cameras' maps do not depend on each other
        maps = [x.expand(-1, cameras, -1, -1, -1) for x in ([features] if one_map else features)]
        features = maps[0] if one_map else maps
        tokens = model.chosen_tokens(features, size)
        code, memory = model.head.encode_rig(frame.rig, size), model.empty_memory(1)
        head, _ = _count(lambda: model.head(features, frame, memory, None, tokens, size, code))
    parts = {"backbone": cameras * of_camera, "head": head}
    parts["frame"] = sum(parts.values())
    return {name: 1e-12 * batch * flops for name, flops in parts.items()}


def _count(call: Callable[[], Any]) -> tuple[int, Any]:
    """The operations of a call, and what it returns."""
    with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
        result = call()
    return counter.get_total_flops(), result


# Operations that torch's counter does not know, by the shapes of their arguments.
_UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    # (B, h, n, D) queries, (B, h, m, D) keys
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, *_, **__: 4 * math.prod(query) * key[2]
    )
}
if ONEDNN_PRODUCT is not None:  # (..., I) through (O, I)
    _UNKNOWN_TO_TORCH[ONEDNN_PRODUCT] = lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]
