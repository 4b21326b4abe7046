"""StreamPETR, EVA-02 ViT-L, 800x320, 24 epochs, backbone learning rate x0.1.

Aims at: val NDS 0.6009, mAP 0.5152, published for these settings from EVA-02 detection weights,
which `train.init_checkpoint` names. 16 frames per step: 8 processes with 2 lanes each.
Iterations: 42192 on nuScenes' 28130 training frames. Memory: published 11 GB (40 GB without
activation checkpointing), probably per GPU with 2 frames; not measured here.
"""

from .common.nuscenes import dataloader, dataset_spec
from .common.optim import optimizer
from .common.report import report
from .common.schedule import schedule
from .common.train import train
from .models.streampetr_vit_l import model

report.title = "StreamPETR, EVA-02 ViT-L, 800x320"
# EVA-02 detection weights, see docs/checkpoints.md; "" starts from random ones.
train.init_checkpoint = "weights/eva02_L_coco_det_sys_o365.pth"
train.output_dir = "output/streampetr_eva02_l_800x320_24ep"
