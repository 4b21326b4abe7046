"""StreamPETR trained with ray denoising (RayDN), EVA-02 ViT-L, 800x320, 24 epochs.

Nothing is published for this pair. Without rays: val NDS 0.6009, mAP 0.5152 (see
streampetr_eva02_l_800x320_24ep.py, from which only the rays differ). Memory and time: not measured;
inference is unchanged.
"""

from .streampetr_eva02_l_800x320_24ep import (
    dataloader,
    dataset_spec,
    model,
    optimizer,
    report,
    schedule,
    train,
)

model.denoising.ray.groups = 1
report.title = "StreamPETR with ray denoising, EVA-02 ViT-L, 800x320"
train.output_dir = "output/streampetr_raydn_eva02_l_800x320_24ep"
