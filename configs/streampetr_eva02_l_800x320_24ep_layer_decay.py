"""StreamPETR, EVA-02 ViT-L, 800x320, 24 epochs, layer-wise learning-rate decay.

Aims at: val NDS 0.6085, mAP 0.5304, published for these settings from EVA-02 detection weights,
which `train.init_checkpoint` names. 16 frames per step: 8 processes with 2 lanes each.
Iterations: 42192 on nuScenes' 28130 training frames. Memory: published 11 GB (40 GB without
activation checkpointing), probably per GPU with 2 frames; not measured here.
"""

from .common.layer_decay import optimizer
from .streampetr_eva02_l_800x320_24ep import (
    dataloader,
    dataset_spec,
    model,
    report,
    schedule,
    train,
)

report.title = "StreamPETR, EVA-02 ViT-L, layer-wise decay, 800x320"
train.output_dir = "output/streampetr_eva02_l_800x320_24ep_layer_decay"
