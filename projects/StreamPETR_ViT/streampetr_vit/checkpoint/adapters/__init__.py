"""Translates foreign checkpoints and configurations into ours, and back; the home of foreign names.

Every `..._from_...` function takes a flat name -> tensor mapping and returns a new dict with the
names of one of our modules. Rotary tables are dropped: ours are computed
(`modeling.backbone.rope`).
"""

from streampetr_vit.checkpoint.adapters.backbone import (
    backbone_arguments_from_streampetr,
    backbone_from_eva_detection,
    backbone_from_streampetr,
    resize_patch_embed,
    resize_position_table,
    translate_eva_detection,
    translate_eva_pre_training,
    translate_remapped,
)
from streampetr_vit.checkpoint.adapters.detector import (
    detector_from_streampetr,
    detector_to_streampetr,
    translate_detector,
)
from streampetr_vit.checkpoint.adapters.head import (
    HEAD_CONSTANTS,
    head_from_streampetr,
    head_to_streampetr,
    rename_head_key,
)
from streampetr_vit.checkpoint.adapters.image import (
    image_head_from_streampetr,
    neck_from_streampetr,
    rename_image_head_key,
)
from streampetr_vit.checkpoint.adapters.renaming import Unused
from streampetr_vit.checkpoint.key_report import is_rotary_table

__all__ = [
    "HEAD_CONSTANTS",
    "Unused",
    "backbone_arguments_from_streampetr",
    "backbone_from_eva_detection",
    "backbone_from_streampetr",
    "detector_from_streampetr",
    "detector_to_streampetr",
    "head_from_streampetr",
    "head_to_streampetr",
    "image_head_from_streampetr",
    "is_rotary_table",
    "neck_from_streampetr",
    "rename_head_key",
    "rename_image_head_key",
    "resize_patch_embed",
    "resize_position_table",
    "translate_detector",
    "translate_eva_detection",
    "translate_eva_pre_training",
    "translate_remapped",
]
