"""StreamPETR, EVA-02 ViT-L, 1600x640, 24 epochs, backbone learning rate x0.1."""

from .streampetr_eva02_l_800x320_24ep import dataloader, model, optimizer, report, schedule, train

model.backbone.net.img_size = 640  # the shorter side, 40 tokens
model.backbone.net.global_window_size = 40

dataloader.train.mapper.image_aug.final_size = [640, 1600]
dataloader.train.mapper.image_aug.resize_range = [0.94, 1.25]

report.title = "StreamPETR, EVA-02 ViT-L, 1600x640"
train.output_dir = "output/streampetr_eva02_l_1600x640_24ep"
