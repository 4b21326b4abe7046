"""Parameter groups, the learning rate over time and the average of the weights."""

from streampetr_vit.solver.ema import WeightAverage
from streampetr_vit.solver.layer_decay import LayerDecay, layer_decay_groups
from streampetr_vit.solver.param_groups import backbone_lr_groups, factor_groups, group_parameters
from streampetr_vit.solver.schedule import batch_lr_factor, iterations_per_epoch, warmup_cosine

__all__ = [
    "LayerDecay",
    "WeightAverage",
    "backbone_lr_groups",
    "batch_lr_factor",
    "factor_groups",
    "group_parameters",
    "iterations_per_epoch",
    "layer_decay_groups",
    "warmup_cosine",
]
