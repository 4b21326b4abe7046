"""The first biases of class logits."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn

_PRIOR_PROBABILITY = 0.01  # of a class, or of an object, before training


def set_prior_bias(layers: Iterable[nn.Module]) -> None:
    """Sets the biases of layers that give logits so that every probability begins at 0.01.

    Almost all predictions are background: at 0.5 they would make the first focal losses huge.
    Source: focal loss (arXiv 1708.02002).
    """
    logit = -math.log((1 - _PRIOR_PROBABILITY) / _PRIOR_PROBABILITY)
    for layer in layers:
        nn.init.constant_(layer.get_parameter("bias"), logit)
