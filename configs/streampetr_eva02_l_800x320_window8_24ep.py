"""StreamPETR, EVA-02 ViT-L, 800x320, sliding windows of 8 frames, gradients on the last 2.

The published alternative to streaming training: about four times its time per epoch, and fewer
epochs to converge. 8 windows per step: 8 processes with 1 each.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.data.build import build_window_loader

from .streampetr_eva02_l_800x320_24ep import (
    dataloader,
    dataset_spec,
    model,
    optimizer,
    report,
    schedule,
    train,
)

dataloader.train = L(build_window_loader)(
    dataset=dataloader.train.dataset,
    spec="${dataset_spec}",
    mapper=dataloader.train.mapper,
    window_length=8,
    window_drop=1,  # one of the 8 frames before the newest is left out at random
    lanes_per_rank=1,
    num_workers=None,
    seed="${train.seed}",
)
model.window.num_frame_losses = 2
model.window.num_frame_head_grads = model.window.num_frame_backbone_grads = 2

optimizer.lr, schedule.lr_batch = 2e-4, 8  # for 8 windows per step

report.title = "StreamPETR, EVA-02 ViT-L, windows of 8, 800x320"
train.output_dir = "output/streampetr_eva02_l_800x320_window8_24ep"
