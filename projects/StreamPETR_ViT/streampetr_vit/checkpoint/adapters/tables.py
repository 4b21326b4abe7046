"""Names in the parts of StreamPETR and RepDETR3D, and in ours."""

from __future__ import annotations

from functools import partial

from streampetr_vit.checkpoint.adapters.renaming import Renaming, under

# EVAViT holds its pyramid; ours (`simfp_{k}.*`) stands beside the ViT.
BACKBONE = Renaming("our backbone", (("adapter.simfp_", "simfp_"), ("", "net.")))
NECK = Renaming(
    "the neck CPFPN",
    prefixes=(("lateral_convs.", "lateral_convs."), ("fpn_convs.", "fpn_convs.")),
    # There, each convolution is inside a module of its own.
    inner=((".conv.weight", ".weight"), (".conv.bias", ".bias")),
)
IMAGE_HEAD = Renaming(
    "StreamPETR's or RepDETR3D's 2D head",
    prefixes=(
        # StreamPETR's FocalHead.
        ("shared_cls.", "class_tower."),
        ("shared_reg.", "box_tower."),
        ("cls.", "class_logits."),
        ("centerness.", "centerness."),
        ("ltrb.", "box_sides."),
        ("center2d.", "center_offset."),
        # RepDETR3D's YOLOX head has one of each for every level of the pyramid.
        ("multi_level_cls_convs.", "class_towers."),
        ("multi_level_reg_convs.", "box_towers."),
        ("multi_level_conv_cls.", "level_class_logits."),
        ("multi_level_conv_reg.", "level_boxes."),
        ("multi_level_conv_obj.", "level_objectness."),
        ("multi_level_conv_centers2d.", "level_center_offset."),
    ),
)
HEAD = Renaming(
    "StreamPETR's or RepDETR3D's 3D head",
    prefixes=(
        ("position_encoder.", "position_encoder.mlp."),
        ("coords_d", "position_encoder.depth_bins_m"),
        ("memory_embed.", "token_embed."),
        ("spatial_alignment.", "token_modulation."),
        ("featurized_pe.conv_reduce.", "position_gate.reduce."),
        ("featurized_pe.conv_expand.", "position_gate.expand."),
        ("query_embedding.", "alignment.query_embed."),
        ("time_embedding.", "alignment.time_embed."),
        ("ego_pose_pe.", "alignment.motion_position."),
        ("ego_pose_memory.", "alignment.motion_content."),
        ("reference_points.weight", "reference_points"),
        ("pseudo_reference_points.weight", "start_points"),
        ("transformer.decoder.", "decoder."),
        # All decoder layers share one branch of each kind; the reference lists copies of it.
        ("cls_branches.0.", "class_branch."),
        ("reg_branches.0.", "box_branch."),
    ),
    inner=(
        # RepDETR3D samples image features where StreamPETR has the cross-attention.
        (".attentions.1.weights_fc.", ".cross_attention.weights."),
        (".attentions.1.output_proj.", ".cross_attention.output."),
        (".attentions.1.learnable_fc.", ".cross_attention.points."),
        (".attentions.1.cam_embed.", ".cross_attention.camera_embed."),
        (".attentions.0.attn.", ".self_attention."),
        (".attentions.1.attn.", ".cross_attention."),
        (".ffns.0.layers.0.0.", ".feedforward.0."),
        (".ffns.0.layers.1.", ".feedforward.3."),
        (".reduce.0.", ".reduce."),
    ),
)
# What the reference keeps among the head's weights -> our setting (see `checkpoint.settings`).
HEAD_CONSTANTS = {
    "pc_range": "point_cloud_range",
    "position_range": "position_range",
    "code_weights": "code_weights",
    "match_costs": "match_costs",
}
# Parts of a detector: prefix there -> part of ours, and the names in it.
PARTS = {
    "img_backbone.": ("backbone", BACKBONE),
    "img_neck.": ("neck", NECK),
    "img_roi_head.": ("image_head", IMAGE_HEAD),
    "pts_bbox_head.": ("head", HEAD),
}

# EVA-02's detection files have our names, as detectron2's ViTDet.
backbone_from_eva_detection = partial(under, prefix="backbone.")
backbone_from_streampetr = BACKBONE.weights_to_ours
neck_from_streampetr = NECK.weights_to_ours
image_head_from_streampetr = IMAGE_HEAD.weights_to_ours
rename_image_head_key = IMAGE_HEAD.to_ours
rename_head_key = HEAD.to_ours
