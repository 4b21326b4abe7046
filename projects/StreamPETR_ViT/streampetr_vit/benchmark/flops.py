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

# Operations that torch's counter does not know, by the shapes of their arguments.
_UNKNOWN_TO_TORCH: dict[Any, Callable[..., int]] = {
    # (B, h, n, D) queries, (B, h, m, D) keys
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, *_, **__: 4 * math.prod(query) * key[2]
    )
}
if ONEDNN_PRODUCT is not None:  # (..., I) through (O, I)
    _UNKNOWN_TO_TORCH[ONEDNN_PRODUCT] = lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]


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
    frame, size = made_up_frame(image_size, cameras, 1), model.padded_size(image_size)
    # Stand-ins of CPU tensors, and not of "meta" ones: a GPU's and a CPU's paths do the same work,
    # but only a CPU's attention without padded keys can be followed without running it.
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model.to_empty(device="cpu")
        code, memory = model.head.encode_rig(frame.rig, size), model.empty_memory(1)
        with FlopCounterMode(display=False, custom_mapping=_UNKNOWN_TO_TORCH) as counter:
            features = model.image_features(frame.images)
            backbone = counter.get_total_flops()
            tokens = model.chosen_tokens(features, size)
            model.head(features, frame, memory, None, tokens, size, code)
            whole = counter.get_total_flops()
    flops = {"backbone": backbone, "head": whole - backbone, "frame": whole}
    return {name: 1e-12 * batch * count for name, count in flops.items()}
