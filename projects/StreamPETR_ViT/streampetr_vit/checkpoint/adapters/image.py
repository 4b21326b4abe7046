"""The neck, and the 2D heads of StreamPETR (FocalHead) and RepDETR3D (YOLOX)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from streampetr_vit.checkpoint.adapters.renaming import Renaming, under
from streampetr_vit.errors import InputError

_FOCAL_LAYERS = (
    ("shared_cls.", "class_tower."),
    ("shared_reg.", "box_tower."),
    ("cls.", "class_logits."),
    ("centerness.", "centerness."),
    ("ltrb.", "box_sides."),
    ("center2d.", "center_offset."),
)
# One of each for every level of the pyramid.
_YOLOX_LAYERS = (
    ("multi_level_cls_convs.", "class_towers."),
    ("multi_level_reg_convs.", "box_towers."),
    ("multi_level_conv_cls.", "level_class_logits."),
    ("multi_level_conv_reg.", "level_boxes."),
    ("multi_level_conv_obj.", "level_objectness."),
    ("multi_level_conv_centers2d.", "level_center_offset."),
)
IMAGE_HEAD = Renaming((*_FOCAL_LAYERS, *_YOLOX_LAYERS))


def image_head_from_streampetr(
    state_dict: Mapping[str, Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Weights of StreamPETR's FocalHead or RepDETR3D's YOLOX head, for ours.

    Args:
        state_dict: foreign names.
        prefix: `"img_roi_head."` in detector checkpoints; other names are left out.

    Raises:
        ValueError: a name is of neither.
    """
    return {
        rename_image_head_key(name): tensor for name, tensor in under(state_dict, prefix).items()
    }


def rename_image_head_key(name: str) -> str:
    """Our name of one tensor of the reference's 2D head, given without prefix.

    Raises:
        ValueError: it is of neither head.
    """
    ours = IMAGE_HEAD.to_ours(name)
    if ours is None:
        layers = ", ".join(theirs.rstrip(".") for theirs, _ in IMAGE_HEAD.prefixes)
        raise InputError(
            f"{name!r} is no tensor of StreamPETR's or RepDETR3D's 2D head, whose layers are "
            f"{layers}; it is another 2D head"
        )
    return ours


def neck_from_streampetr(state_dict: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """Weights of StreamPETR's CPFPN, for ours.

    Args:
        state_dict: foreign names.
        prefix: `"img_neck."` in detector checkpoints; other names are left out.
    """
    return {rename_neck_key(name): tensor for name, tensor in under(state_dict, prefix).items()}


def rename_neck_key(name: str) -> str:
    """Our name of one tensor of the reference's neck, given without prefix."""
    return name.replace(".conv.", ".")


def neck_key_to_streampetr(name: str) -> str:
    """The way back of `rename_neck_key`: each convolution is inside a module of its own."""
    return re.sub(r"(_convs\.\d+)\.", r"\1.conv.", name)
