"""StreamPETR, EVA-02 ViT-L, 1600x640, 24 epochs, layer-wise learning-rate decay.

Aims at: no result is published for this size with this optimiser; the recipe beside it says what
is known of the size. Iterations: 42192 with 16 frames per step on nuScenes' 28130 training
frames. Memory: not published, not measured.
"""

from .common.layer_decay import optimizer
from .streampetr_eva02_l_1600x640_24ep import (
    dataloader,
    dataset_spec,
    model,
    report,
    schedule,
    train,
)

report.title = "StreamPETR, EVA-02 ViT-L, layer-wise decay, 1600x640"
train.output_dir = "output/streampetr_eva02_l_1600x640_24ep_layer_decay"
