"""The RepDETR3D detector's code with 2 M parameters, for two CPU cores.

On the tiny StreamPETR's ViT, queries and losses; one level of features, six points per query, and
no prior: projected points find the image from the first step.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.engine.distributed import loss_reduction
from streampetr_vit.modeling.backbone import SimpleFeaturePyramid
from streampetr_vit.modeling.criterion.yolox_loss import YOLOXLoss
from streampetr_vit.modeling.decoder.decoder import SamplingDecoder
from streampetr_vit.modeling.heads.repdetr3d import RepDETR3DHead
from streampetr_vit.modeling.heads.yolox import YOLOXHead

from .repdetr3d_vit_l import SHARED
from .streampetr_vit_tiny import dataset_spec, model

model.backbone = L(SimpleFeaturePyramid)(
    net=model.backbone.net,
    in_feature="last_feat",
    out_channels=128,
    scale_factors=[1],  # p4
    norm="LN",
)
model.in_feature = ["p4"]
model.head = L(RepDETR3DHead)(
    decoder=L(SamplingDecoder)(
        embed_dim=128,
        num_heads=4,
        feedforward_dim=512,
        num_layers=3,
        num_levels=1,
        num_points=6,
        num_groups=4,
        dropout=0.0,
        sampling_kernel="gather",  # the quicker one on a CPU
    ),
    num_classes="${count:${dataset_spec.classes}}",
    **{name: model.head[name] for name in SHARED},
)
model.image_head = L(YOLOXHead)(
    in_channels=128, strides=[16], embed_dim=32, num_classes="${..head.num_classes}"
)
model.criterion.image = L(YOLOXLoss)(reduce_mean=L(loss_reduction)())
