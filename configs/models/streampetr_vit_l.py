"""StreamPETR with the EVA-02 ViT-Large backbone, as trained on nuScenes at 800x320.

No neck: the first layers of both heads bring 1024 channels to 256. Recipes import and edit this.
"""

from detectron2.config import LazyCall as L

from streampetr_vit.engine.distributed import loss_reduction
from streampetr_vit.inference.bare_model import BareStreamPETR
from streampetr_vit.modeling.criterion.denoising import DenoisingNoise
from streampetr_vit.modeling.criterion.detection_loss import DetectionLoss
from streampetr_vit.modeling.criterion.image_loss import ImageLoss
from streampetr_vit.modeling.criterion.image_matcher import ImageMatcher
from streampetr_vit.modeling.criterion.matcher import HungarianMatcher
from streampetr_vit.modeling.criterion.quality_loss import QualityLoss
from streampetr_vit.modeling.criterion.ray_denoising import RayDenoising
from streampetr_vit.modeling.criterion.training_loss import TrainingLoss
from streampetr_vit.modeling.decoder.decoder import TemporalDecoder
from streampetr_vit.modeling.heads.focal import FocalHead
from streampetr_vit.modeling.heads.streampetr import StreamPETRHead
from streampetr_vit.modeling.image.grid_mask import GridMask
from streampetr_vit.modeling.image.position_encoder import ImagePositionEncoder
from streampetr_vit.modeling.training_window import TrainingWindow

from ..common.nuscenes import dataset_spec  # head.num_classes counts its classes
from .eva02_vit_l import backbone

CODE_WEIGHTS = [2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]  # x y z, l w h, sin cos, vx vy
MAX_POSITIVE_DISTANCE = 0.75  # of a denoising query's noise; beyond, it is background

head = L(StreamPETRHead)(
    in_channels=1024,
    decoder=L(TemporalDecoder)(
        embed_dim=256,
        num_heads=8,
        feedforward_dim=2048,
        num_layers=6,
        dropout=0.1,
        # Of the softmax attention to the image; the published runs used "fp16" (on a GPU).
        cross_attention_precision="float32",
        use_act_checkpoint=True,
    ),
    position_encoder=L(ImagePositionEncoder)(
        embed_dim="${..decoder.embed_dim}",
        position_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],  # metres; image rays
        depth_num=64,
        depth_start_m=1.0,
        tile_intrinsics=True,  # a quirk that released weights need
    ),
    num_classes="${count:${dataset_spec.classes}}",
    num_queries=644,
    num_propagated=256,  # memory entries that are queries again in the next frame
    memory_length=1024,
    num_remembered=256,  # queries that enter the memory each frame
    point_cloud_range=[-51.2, -51.2, -5.0, 51.2, 51.2, 3.0],  # metres; reference points
    center_range=[-61.2, -61.2, -10.0, 61.2, 61.2, 10.0],  # metres; detections outside are dropped
    max_detections=300,
    with_quality=False,  # True: predict how well boxes are placed, rank by it; docs/accuracy.md
    remember_by_quality=False,  # True: choose what enters the memory by it too
    stride=16,
    prior_sigma_cells=0.0,  # 0: the published model. More: an aid for small models, see docs
)

image_head = L(FocalHead)(
    in_channels="${..head.in_channels}",
    embed_dim=256,
    num_classes="${..head.num_classes}",
    stride="${..head.stride}",
    num_groups=32,
)

criterion = L(TrainingLoss)(
    detection=L(DetectionLoss)(
        matcher=L(HungarianMatcher)(class_weight=2.0, box_weight=0.25, code_weights=CODE_WEIGHTS),
        class_weight=2.0,
        box_weight=0.25,
        code_weights=CODE_WEIGHTS,
        max_positive_distance=MAX_POSITIVE_DISTANCE,
        reduce_mean=L(loss_reduction)(),
        soft_class_target=False,  # True: sure of the class only where the box is near the object
        quality=L(QualityLoss)(  # of head.with_quality
            centerness_weight=1.0,
            yawness_weight=1.0,
            # Classes whose heading nuScenes scores modulo half a turn.
            symmetric_labels="${labels:${dataset_spec.classes},barrier}",
        ),
    ),
    image=L(ImageLoss)(
        matcher=L(ImageMatcher)(
            class_weight=2.0, box_weight=5.0, giou_weight=2.0, center_weight=10.0
        ),
        class_weight=2.0,
        box_weight=5.0,
        iou_weight=2.0,
        center_weight=10.0,
        centerness_weight=1.0,
        stride="${model.head.stride}",
        reduce_mean=L(loss_reduction)(),
    ),
)

model = L(BareStreamPETR)(
    backbone=backbone,
    neck=None,  # L(CPFPN)(...) for one; see configs/streampetr_eva02_l_800x320_cpfpn_24ep.py
    head=head,
    image_head=image_head,  # trains the features; off in inference. None to do without
    criterion=criterion,
    denoising=L(DenoisingNoise)(
        groups=10,
        scale=1.0,
        translation_m=0.0,
        max_positive_distance=MAX_POSITIVE_DISTANCE,
        # RayDN: groups=1 adds queries along camera rays. Training only, the same weights.
        ray=L(RayDenoising)(
            groups=0,
            num_points=5,
            alpha=8.0,
            beta=2.0,
            radius=3.0,  # half sizes of the box
            max_positive_step=MAX_POSITIVE_DISTANCE,
            keep_sign=False,
            drop_unseen=False,
            min_depth_m=None,
        ),
    ),
    grid_mask=L(GridMask)(probability=0.7, ratio=0.5),
    input_format="RGB",  # "BGR" for backbones that were trained so (released V2-99 weights)
    pixel_mean=[123.675, 116.28, 103.53],  # in that order
    pixel_std=[58.395, 57.12, 57.375],
    size_divisibility=32,
    token_ratio=1.0,  # share of the image tokens that the 3D head sees, chosen by the 2D head
    memory_at_test=True,
    # Frames of a window with losses and gradients; a streaming step is a window of one.
    window=L(TrainingWindow)(
        num_frame_losses=1, num_frame_head_grads=1, num_frame_backbone_grads=1
    ),
)
