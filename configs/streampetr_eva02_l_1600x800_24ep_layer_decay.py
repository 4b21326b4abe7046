"""StreamPETR, EVA-02 ViT-L, 1600x800, 24 epochs, layer-wise learning-rate decay.

Aims at: no result is published for this size; the authors write that here the gain over the
recipe without layer-wise decay is not obvious. Iterations: 42192 with 16 frames per step on
nuScenes' 28130 training frames. Memory: not published, not measured.
"""

from .common.layer_decay import optimizer
from .streampetr_eva02_l_1600x800_24ep import (
    dataloader,
    dataset_spec,
    model,
    report,
    schedule,
    train,
)

report.title = "StreamPETR, EVA-02 ViT-L, layer-wise decay, 1600x800"
train.output_dir = "output/streampetr_eva02_l_1600x800_24ep_layer_decay"
