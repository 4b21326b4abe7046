"""What the optimiser is told: parameter groups and the learning rate over time."""

from streampetr_vit.solver.param_groups import backbone_lr_groups, group_parameters
from streampetr_vit.solver.schedule import iterations_per_epoch, warmup_cosine

__all__ = ["backbone_lr_groups", "group_parameters", "iterations_per_epoch", "warmup_cosine"]
