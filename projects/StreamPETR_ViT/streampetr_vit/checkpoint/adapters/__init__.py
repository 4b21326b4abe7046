"""Translates foreign checkpoints and configurations into ours, and back; the home of foreign names.

State dicts are flat, name -> tensor; ours are without rotary tables.
"""

from streampetr_vit.checkpoint.adapters.backbone import backbone_arguments_from_streampetr
from streampetr_vit.checkpoint.adapters.renaming import is_rotary_table
from streampetr_vit.checkpoint.adapters.streampetr import (
    detector_from_streampetr,
    detector_to_streampetr,
    head_from_streampetr,
    head_to_streampetr,
)
from streampetr_vit.checkpoint.adapters.tables import (
    IMAGE_HEAD,
    backbone_from_eva_detection,
    backbone_from_streampetr,
    image_head_from_streampetr,
    neck_from_streampetr,
    rename_head_key,
    rename_image_head_key,
)

__all__ = [
    "IMAGE_HEAD",
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
]
