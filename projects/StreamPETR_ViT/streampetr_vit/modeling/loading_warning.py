"""A warning for weights of a backbone that a file does not have."""

from __future__ import annotations

import logging
from typing import Any

from torch import nn

logger = logging.getLogger(__name__)


def warn_of_partial_loading(model: nn.Module) -> None:
    """Makes `model.load_state_dict(strict=False)` warn if weights of `model.backbone` are missing.

    Copies of the model keep the warning.
    """
    # detectron2's checkpointer loads what fits by name; a backbone that stays random is then one
    # line among hundreds of its log.
    model.register_load_state_dict_post_hook(_warn)


def _warn(model: nn.Module, keys: Any) -> None:
    names = [name for name, _ in model.named_parameters() if name.startswith("backbone.")]
    # Where the model is a part of another module, its names have a prefix in `keys`.
    missing = {"backbone." + key.partition("backbone.")[2] for key in keys.missing_keys}
    absent = [name for name in names if name in missing]
    if absent:
        logger.warning(
            "checkpoint: %d of %d tensors of the backbone were not in the file and keep their "
            "random start values (first: %s). Load with "
            "streampetr_vit.checkpoint.loading.SafeCheckpointer, which refuses such files",
            len(absent),
            len(names),
            absent[0],
        )
