"""Finds the weights in a checkpoint file's content, and says whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from streampetr_vit.checkpoint.adapters.known_files import FORMATS, format_of
from streampetr_vit.checkpoint.adapters.renaming import examples
from streampetr_vit.errors import CheckpointError

__all__ = ["AVERAGE", "FORMATS", "format_of", "weights_of"]

# Where files keep their weights, in the order of preference; else they are the whole content.
_WEIGHTS = ("model", "module", "state_dict")
# Where this project keeps the moving average of the weights; and where EVA-02 does.
AVERAGE = "ema"
_AVERAGED_WEIGHTS = (AVERAGE, "ema_state", "model_ema")


def weights_of(content: Mapping[str, Any], path: str, *, averaged: bool = False) -> dict[str, Any]:
    """The weights in a file's content, or the moving average beside them.

    Raises:
        CheckpointError: no weights found, or what is there is no dict of whole, dense tensors.
    """
    wanted = _AVERAGED_WEIGHTS if averaged else _WEIGHTS
    entry = next((name for name in wanted if isinstance(content.get(name), Mapping)), None)
    if averaged and entry is None:
        raise CheckpointError(
            f"{path} holds no averaged weights ({' or '.join(_AVERAGED_WEIGHTS)}), only: "
            f"{', '.join(map(str, content)) if len(content) < 9 else examples(content)}; "
            "leave out --ema (in a training or evaluation: train.init_weights=model)"
        )
    weights = dict(content if entry is None else content[entry])
    strange = next(filter(None, (_what_is_wrong(*item) for item in weights.items())), None)
    if strange is not None or not weights:
        raise CheckpointError(
            f"{path}: {strange or 'empty'}: no dict of tensors under {', '.join(_WEIGHTS)}, nor "
            f"at the top, whose entries are {examples(content)}"
        )
    # Of distributed training, if every name has it: "module." may be a part of the model as well.
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return weights


def _what_is_wrong(name: object, value: object) -> str | None:
    """Why an entry is no tensor that a model can take; None for one that is."""
    if not isinstance(value, Tensor):
        return f"entry {name!r} is a {type(value).__name__}, not a tensor"
    if not isinstance(name, str):
        return f"the name {name!r} of a tensor is a {type(name).__name__}, not a string"
    if value.is_meta or value.layout != torch.strided:
        return f"{name!r} is {'without data (meta)' if value.is_meta else value.layout}, not dense"
    # An expanded tensor shows one number at many places: no real file has such weights.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{name!r} repeats its numbers (expanded), {value.numel()} are not in the file"
    return None
