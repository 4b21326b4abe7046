"""AdamW, with a tenth of the learning rate for the backbone: the simpler published ViT-L recipe.

The other one is layer_decay.py. docs/recipes.md has the rates of both.
"""

import torch
from detectron2.config import LazyCall as L

from streampetr_vit.solver import backbone_lr_groups

optimizer = L(torch.optim.AdamW)(
    # The train loop adds the model to the arguments of params.
    params=L(backbone_lr_groups)(
        lr="${..lr}",
        weight_decay="${..weight_decay}",
        # Factor on lr for the pre-trained backbone and its pyramid.
        backbone_lr_factor=0.1,
        # Start of the backbone's parameter names.
        backbone_prefix="backbone.",
        # False exempts norms and biases from weight decay; the published recipes decay them.
        decay_one_dimensional=True,
        # False exempts the backbone's position table.
        decay_pos_embed=True,
    ),
    # For schedule.lr_batch frames per step; train.auto_scale adapts it to others.
    lr=4e-4,
    betas=(0.9, 0.999),
    weight_decay=0.01,
    # One kernel for all parameters, on CPUs too.
    fused=True,
)
