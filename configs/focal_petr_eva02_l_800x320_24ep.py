"""Focal-PETR, single frame, EVA-02 ViT-L, 800x320, 24 epochs, backbone learning rate x0.1."""

from .common.nuscenes import dataloader, dataset_spec
from .common.optim import optimizer
from .common.report import report
from .common.schedule import schedule
from .common.train import train
from .models.petr_vit_l import model

# Every frame is a sequence of its own: an epoch sees each once, in random order.
dataloader.train.sequence_split, dataloader.train.sequence_length = 1, 1

report.title = "Focal-PETR, EVA-02 ViT-L, 800x320"
# EVA-02 detection weights, see docs/checkpoints.md; "" starts from random ones.
train.init_checkpoint = "weights/eva02_L_coco_det_sys_o365.pth"
train.output_dir = "output/focal_petr_eva02_l_800x320_24ep"
