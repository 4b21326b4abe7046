"""What the published recipe's export would say of itself, for tests that need no graph."""

from __future__ import annotations

from typing import Any

from streampetr_vit.data.nuscenes.spec import NUSCENES, NUSCENES_LIDAR_TO_VEHICLE
from streampetr_vit.export.description import Description
from streampetr_vit.export.interface import Interface
from streampetr_vit.structures import Pose

INTERFACE = Interface(
    cameras=6,
    image_size=(320, 800),
    features=(1, 6, 256, 20, 50),
    position=(1, 6000, 256),
    cone=(1, 6000, 8),
    embed_dim=256,
    memory_in=1024,
    memory_out=1280,
    queries=900,
    classes=10,
)


def described(**changes: Any) -> Description:
    """Of the published recipe, for the vehicle; `changes` replace attributes."""
    values = dict(
        recipe="streampetr_eva02_l_800x320_24ep",
        weights="model_final.pth",
        weights_sha256="0123456789abcdef" * 4,
        detector="StreamPETRHead",
        classes=NUSCENES.class_names,
        cameras=NUSCENES.cameras,
        image_size=(320, 800),
        pixel_mean=(123.675, 116.28, 103.53),
        pixel_std=(58.395, 57.12, 57.375),
        input_format="RGB",
        frame="base_link",
        lidar_to_base_link=tuple(
            map(tuple, Pose.of_row(NUSCENES_LIDAR_TO_VEHICLE).matrix().tolist())
        ),
        precision="fp32",
        center_range=(-61.2, -61.2, -10.0, 61.2, 61.2, 10.0),
        max_detections=300,
        score_threshold=None,
        num_queries=644,
        num_remembered=256,
        frame_period_s=0.5,
        remembers=True,
        program="streampetr_vit 0.1.0",
    )
    return Description(**(values | changes))
