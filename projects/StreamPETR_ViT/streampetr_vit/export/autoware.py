"""What Autoware's node `autoware_camera_streampetr` reads beside the graphs, and what it can run.

Source: the node's network.cpp, camera_data_store.cpp, postprocess_kernel.cu and node.cpp.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from streampetr_vit.errors import InputError
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import Interface
from streampetr_vit.files import replacing
from streampetr_vit.texts import file_name, name_list

logger = logging.getLogger(__name__)

# The labels that the node has; every other name is UNKNOWN to it.
_LABELS = ("CAR", "TRUCK", "BUS", "TRAILER", "MOTORCYCLE", "BICYCLE", "PEDESTRIAN")
_HAZARDS = ("TRAFFIC_CONE", "BARRIER")
# How it normalises pictures, which are RGB; these numbers stand in its code.
_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_STEP_M = 0.1  # that ranges are rounded to


def check_for_node(description: Description, bottom_crop: float = 0.0) -> None:
    """Refuses graphs that the node would run with wrong results, and logs what it does otherwise.

    Args:
        bottom_crop: fraction of the resized pictures' height that evaluation cuts off below.

    Raises:
        InputError: the frame, or the pictures that the network takes, are not the node's.
    """
    if description.frame != "base_link":
        raise InputError(
            f"frame={description.frame!r}: Autoware's node gives cameras and poses in base_link; "
            "export with --frame base_link"
        )
    if description.input_format != "RGB":
        raise InputError(
            f"model.input_format is {description.input_format!r}: Autoware's node gives RGB; take "
            "a recipe and weights with input_format='RGB', or leave out --autoware"
        )
    for name, has, gives in (
        ("pixel_mean", description.pixel_mean, _MEAN),
        ("pixel_std", description.pixel_std, _STD),
    ):
        if not np.allclose(has, gives, rtol=1e-4):
            raise InputError(
                f"model.{name} is {list(has)}: Autoware's node normalises pictures by "
                f"{list(gives)}; take a recipe and weights with these, or leave out --autoware"
            )
    names = class_names(description)
    known = (*_LABELS, *_HAZARDS)
    for label, shown_so in (
        ("UNKNOWN", [name for name in names if name not in known]),
        ("HAZARD", [name for name in names if name in _HAZARDS]),
    ):
        if shown_so:
            logger.info("Autoware's node publishes %s as %s", name_list(shown_so), label)
    if bottom_crop:
        logger.warning(
            "image_aug.bottom_crop_range cuts off %.3g of the height below; Autoware's node keeps "
            "the lowest rows: it gives the network another part of the pictures",
            bottom_crop,
        )
    if not description.remembers:
        logger.warning(
            "model.memory_at_test is False: set use_temporal: false in the node's own parameters"
        )


def class_names(description: Description) -> list[str]:
    """Names in the order of the logits, as the node spells them."""
    return [name.upper() for name in description.classes]


def detection_range(description: Description) -> list[float]:
    """The smallest box around the network's range, x y z minimum and maximum in metres.

    Rounded outward to 0.1 m, in the frame of the export. What the network never gives lies outside.
    """
    low, high = np.reshape(description.center_range, (2, 3)).astype(np.float64)
    corners = np.array(list(itertools.product(*zip(low, high, strict=True))))  # (8, 3)
    if description.frame == "base_link":
        pose = description.lidar_to_base_link_matrix()
        corners = corners @ pose[:3, :3].T + pose[:3, 3]
    # A hair inwards first: -61.2 as float32 is a little less than -61.2.
    least = [math.floor(v / _STEP_M + 1e-3) * _STEP_M for v in corners.min(0)]
    most = [math.ceil(v / _STEP_M - 1e-3) * _STEP_M for v in corners.max(0)]
    return [round(value, 1) for value in (*least, *most)]


def write_parameters(path: Path, description: Description, interface: Interface) -> None:
    """Writes the node's parameters of the model.

    Raises:
        OutputError: the file cannot be written.
    """
    values: dict[str, Any] = {
        "class_names": class_names(description),
        "detection_range": detection_range(description),
        "input_image_height": interface.image_size[0],
        "input_image_width": interface.image_size[1],
        "num_proposals": interface.queries,
        "rois_number": interface.cameras,
        "pre_memory_length": interface.memory_in,
        "post_memory_length": interface.memory_out,
    }
    # JSON's lists, quoted texts and numbers with a point are YAML's too. ROS would take an unquoted
    # NO for false, and refuses a list of both 1 and 1.5; its launch file replaces $(...).
    lines = [
        f"      {name}: {json.dumps(value)}".replace("$", "\\u0024")
        for name, value in values.items()
    ]
    head = ["/**:", "  ros__parameters:", "    model_params:"]
    with replacing(path) as temporary:
        temporary.write_text("\n".join([*_comment(description), *head, *lines, ""]), "utf-8")


def _comment(description: Description) -> list[str]:
    # Names without special signs: comments are replaced in too, and end with the line.
    recipe, weights = file_name(description.recipe), file_name(description.weights)
    cameras = ", ".join(map(file_name, description.cameras))
    if description.frame == "base_link":
        frame = "base_link, as the node has it"
    else:
        frame = (
            f"{description.frame}, that of the weights: the node needs base_link, export with "
            "--autoware"
        )
    lines = [
        "Of the three graphs beside this file, for Autoware's autoware_camera_streampetr.",
        f"Recipe {recipe}, weights {weights}, SHA-256 {description.weights_sha256[:16]}.",
        f"Frame: {frame}. detection_range is in it.",
        f"Cameras 0 to {len(description.cameras) - 1}: {cameras}.",
        "In the node's own parameters set iou_nms_threshold: 0.0 and circle_nms_dist_threshold: "
        "0.0",
        "(every object comes once), and give confidence_threshold and yaw_norm_thresholds "
        f"{len(description.classes)} values,",
        "one for each of class_names in this order.",
        f"The memory was trained on frames {description.frame_period_s:g} s apart; the node puts "
        "every frame in it.",
    ]
    if not description.remembers:
        lines.append("Set use_temporal: false as well: each frame stands alone.")
    return [f"# {line}" for line in lines]
