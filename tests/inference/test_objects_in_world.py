"""Objects in the frame of the poses, with the reference frame that a rig states."""

from __future__ import annotations

import numpy as np
import torch
from drive_folder import rig_values

from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import Detections, Objects, Pose, Rig


def test_the_reference_of_a_rig_leads_to_the_world() -> None:
    rig = Rig.of(
        rig_values()
        | {"reference_to_vehicle": {"translation": [1, 0, 2], "rotation": [1, 0, 0, 0]}}
    )
    boxes = torch.tensor([[3.0, 0, -1, 4, 2, 1.5, 0, 5, 0]])
    turned_left = Pose(np.array([10.0, 20, 0]), np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]))
    objects = Objects.of(
        Detections(boxes, torch.ones(1), torch.zeros(1, dtype=torch.long)),
        rig.reference_to_vehicle,
        turned_left,
        NUSCENES,
        timestamp_s=0.0,
    )
    np.testing.assert_allclose(objects.centers, [[4, 0, 1]])
    world = objects.to("world")
    np.testing.assert_allclose(world.centers, [[10, 24, 1]])
    np.testing.assert_allclose(world.velocities, [[0, 5]], atol=1e-12)
    np.testing.assert_allclose(world.yaws, [np.pi / 2])
