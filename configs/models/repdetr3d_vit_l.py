"""RepDETR3D with the EVA-02 ViT-Large backbone and its pyramid, as trained on nuScenes at 800x320.

What it shares with StreamPETR comes from there: queries, memory, denoising, losses of the 3D head.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.engine.distributed import loss_reduction
from streampetr_vit.modeling.criterion.yolox_loss import YOLOXLoss
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead

from .eva02_vit_l import pyramid_backbone
from .streampetr_vit_l import dataset_spec, model

# Settings of the 3D head that both detectors have.
SHARED = (
    "num_queries",
    "num_propagated",
    "memory_length",
    "num_remembered",
    "point_cloud_range",
    "center_range",
    "max_detections",
    "with_quality",
    "remember_by_quality",
)

model.backbone = pyramid_backbone
model.in_feature = ["p2", "p3", "p4", "p5"]  # strides 4 to 32
model.head = L(RepDETR3DHead)(
    decoder=L(SamplingDecoder)(
        embed_dim=256,
        num_heads=8,
        feedforward_dim=1024,  # and no dropout in it: so are the released weights
        feedforward_dropout=0.0,
        num_layers=6,
        num_levels=4,
        num_points=13,  # learned, for each query
        num_groups=8,
        dropout=0.1,
        sampling_kernel="grid_sample",  # "gather" is quicker on a CPU; see docs/performance.md
        use_act_checkpoint=True,
    ),
    num_classes="${count:${dataset_spec.classes}}",
    **{name: model.head[name] for name in SHARED},
)
model.image_head = L(YOLOXHead)(
    in_channels="${..backbone.out_channels}",
    strides=[4, 8, 16, 32],
    embed_dim=256,
    num_classes="${..head.num_classes}",
)
model.criterion.image = L(YOLOXLoss)(reduce_mean=L(loss_reduction)())
