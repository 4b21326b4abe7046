"""StreamPETR, EVA-02 ViT-L, 800x320, with a CPFPN neck from 1024 to 256 channels.

As in a public re-training of the model; the published runs have no neck.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.modeling.backbone import CPFPN

from .streampetr_eva02_l_800x320_24ep import (
    dataloader,
    dataset_spec,
    model,
    optimizer,
    report,
    schedule,
    train,
)

model.neck = L(CPFPN)(in_channels=[1024], out_channels=256, in_features=["last_feat"])
model.head.in_channels = 256  # the 2D head follows

report.title = "StreamPETR, EVA-02 ViT-L, CPFPN, 800x320"
train.output_dir = "output/streampetr_eva02_l_800x320_cpfpn_24ep"
