"""The neck, and the 2D heads of StreamPETR (FocalHead) and RepDETR3D (YOLOX)."""

from __future__ import annotations

from streampetr_vit.checkpoint.adapters.renaming import Renaming

NECK = Renaming(
    "the neck CPFPN",
    prefixes=(("lateral_convs.", "lateral_convs."), ("fpn_convs.", "fpn_convs.")),
    # There, each convolution is inside a module of its own.
    inner=((".conv.weight", ".weight"), (".conv.bias", ".bias")),
)
IMAGE_HEAD = Renaming(
    "StreamPETR's or RepDETR3D's 2D head",
    prefixes=(
        ("shared_cls.", "class_tower."),
        ("shared_reg.", "box_tower."),
        ("cls.", "class_logits."),
        ("centerness.", "centerness."),
        ("ltrb.", "box_sides."),
        ("center2d.", "center_offset."),
        # RepDETR3D has one of each for every level of the pyramid.
        ("multi_level_cls_convs.", "class_towers."),
        ("multi_level_reg_convs.", "box_towers."),
        ("multi_level_conv_cls.", "level_class_logits."),
        ("multi_level_conv_reg.", "level_boxes."),
        ("multi_level_conv_obj.", "level_objectness."),
        ("multi_level_conv_centers2d.", "level_center_offset."),
    ),
)

neck_from_streampetr = NECK.weights_to_ours
image_head_from_streampetr = IMAGE_HEAD.weights_to_ours
rename_image_head_key = IMAGE_HEAD.to_ours
