"""PETR with denoising, single frame, EVA-02 ViT-L, 800x320, 24 epochs."""

from .focal_petr_eva02_l_800x320_24ep import (
    dataloader,
    dataset_spec,
    model,
    optimizer,
    report,
    schedule,
    train,
)

model.image_head = model.criterion.image = None
dataloader.train.mapper.boxes2d = False

report.title = "PETR, EVA-02 ViT-L, 800x320"
train.output_dir = "output/petr_eva02_l_800x320_24ep"
