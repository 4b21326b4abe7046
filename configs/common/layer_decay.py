"""AdamW with layer-wise learning-rate decay: the better published ViT-L recipe at 800x320.

Replaces the parameter groups of optim.py; everything else of the optimiser is the same.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.solver import layer_decay_groups

from .optim import optimizer

optimizer.params = L(layer_decay_groups)(
    lr="${..lr}",
    weight_decay="${..weight_decay}",
    # Factor on the learning rate from each block to the one before it.
    decay_rate=0.9,
    # Factor on lr for everything outside the backbone: 4e-4, as in the other recipe.
    head_factor=4.0,
    # Blocks of the ViT.
    num_layers=24,
    # Factor on lr for the pyramid around the ViT; None takes head_factor.
    pyramid_factor=None,
    # Start of the backbone's parameter names.
    backbone_prefix="backbone.",
    # True decays norms and biases too.
    decay_one_dimensional=False,
    # False exempts the backbone's position table.
    decay_pos_embed=True,
)
# Learning rate of a parameter with factor 1, for schedule.lr_batch frames per step.
optimizer.lr = 1e-4
optimizer.weight_decay = 1e-7
