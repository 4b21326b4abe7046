"""torch.compile for the slow parts of a detector, as train.compile asks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from streampetr_vit.errors import InputError
from streampetr_vit.modeling.backbone import ViT
from streampetr_vit.modeling.backbone.vit_arguments import SELECTIVE
from streampetr_vit.modeling.decoder.decoder import Decoder

logger = logging.getLogger(__name__)

Part = TypeVar("Part", bound=nn.Module)

# Not "reduce-overhead" and "max-autotune": they replay a CUDA graph for each block, and the replay
# of the next block may overwrite the outputs of this one. `inference.cuda_graph` captures a whole
# frame instead.
MODES = ("default", "max-autotune-no-cudagraphs")


def compile_parts(
    model: nn.Module,
    backbone: bool = False,
    decoder: bool = False,
    mode: str = "default",
    backend: str | Callable = "inductor",
) -> None:
    """Compiles parts of a model in place. Each compiles in its first call, which takes long.

    Names, weights and state_dict keys stay, so weights may be loaded before or after.

    Args:
        model: a detector.
        backbone: compile each block of the ViT.
        decoder: compile the decoder of the 3D head as a whole.
        mode, backend: torch.compile's; the mode is one of `MODES`.

    Raises:
        InputError: an unknown mode, a model without the part, or selective activation checkpointing
            of the backbone.
    """
    if mode not in MODES:
        raise InputError(f"train.compile.mode={mode!r}: allowed are {', '.join(map(repr, MODES))}")
    # Other backends take no mode.
    options = dict(backend=backend, mode=mode if backend == "inductor" else None)
    if backbone:
        vits = _parts(model, ViT, "backbone")
        for vit in vits:
            check_checkpointing(vit)
        blocks = [block for vit in vits for block in vit.blocks]
        _allow_variants(len(blocks))
        for block in blocks:
            # One form per window size: a form for all sizes would be slower. Activation
            # checkpointing goes around the compiled block and computes it again as a whole.
            block.compile(dynamic=False, **options)
        logger.info("torch.compile: %d blocks of the backbone, mode %s", len(blocks), mode)
    if decoder:
        for part in _parts(model, Decoder, "decoder"):
            # Dynamic shapes: the number of denoising queries changes from step to step.
            part.compile(**options)
        logger.info("torch.compile: the decoder, mode %s", mode)


def _parts(model: nn.Module, kind: type[Part], name: str) -> list[Part]:
    found = [module for module in model.modules() if isinstance(module, kind)]
    if not found:
        raise InputError(
            f"train.compile.{name}=True, but {type(model).__name__} has no {kind.__name__}: set "
            f"train.compile.{name}=False"
        )
    return found


def check_checkpointing(vit: ViT) -> None:
    """Refuses selective activation checkpointing of a compiled ViT, by an InputError."""
    # That policy keeps the outputs of single operations. A compiled block hides most of them, and
    # may write over the memory of the others.
    if vit.use_act_checkpoint == SELECTIVE:
        raise InputError(
            "train.compile.backbone=True does not go with "
            "model.backbone.net.use_act_checkpoint='selective': set that to True or False"
        )


def _allow_variants(blocks: int) -> None:
    """Lets torch keep enough compiled forms of the blocks."""
    # All blocks share one limit, because they share their code. Each window size, drop path rate,
    # batch and mode is a form of its own. Beyond the limit, blocks silently run uncompiled.
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, 8 * blocks)
    config.accumulated_recompile_limit = max(config.accumulated_recompile_limit, 16 * blocks)
