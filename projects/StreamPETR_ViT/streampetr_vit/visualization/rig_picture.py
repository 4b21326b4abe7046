"""Pictures of a rig: the road as a grid in each camera, and the cameras from above.

What is drawn comes from the calibration alone. Where it is right, the grid lies on the road, its
lines run along the lanes, and the horizon is the horizon of the picture.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import Detections, Moment, Rig
from streampetr_vit.structures.lens_checks import fields_of_view_deg
from streampetr_vit.visualization.camera_grid import join_rows, rows_by_view
from streampetr_vit.visualization.camera_panels import empty_panel, resized, to_panel
from streampetr_vit.visualization.camera_shots import CameraShot, camera_shots
from streampetr_vit.visualization.camera_view import TRUTH_STYLE, draw_boxes
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, CLASS_COLORS, Color
from streampetr_vit.visualization.drawing import Image, draw_text
from streampetr_vit.visualization.rig_from_above import BOX_NAMES, draw_boxes_of_rig, draw_places
from streampetr_vit.visualization.road_grid import (
    FORWARD_COLOR,
    FORWARD_M,
    GRID_COLOR,
    GRID_STEP_M,
    HORIZON_COLOR,
    RING_COLOR,
    draw_road,
)
from streampetr_vit.visualization.sheet import HEADER_PX, LEGEND_PX, Entry, strip

_LEAST_ABOVE_PX = 400  # side of the views from above
_LEGEND = (
    Entry(f"road (z = 0), a line each {GRID_STEP_M:.0f} m of the vehicle's x and y", GRID_COLOR),
    Entry("distance from the vehicle's origin", RING_COLOR),
    Entry("horizon", HORIZON_COLOR, dashed=True),
    Entry(f"forward (x), {FORWARD_M:.0f} m", FORWARD_COLOR),
)


def draw_rig(
    rig: Rig,
    moment: Moment | None = None,
    boxes: ArrayLike | None = None,
    title: str = "",
    panel_width: int = 480,
) -> Image:
    """Draws what a calibration says.

    Args:
        rig: the cameras, which count as pinhole cameras: give those of straight pictures.
        moment: of this rig, with straight pictures, see `camera_shots`; a camera without a picture
            is drawn on grey. None draws all of them so.
        boxes: (n, 7) centre, size and yaw in the vehicle frame; drawn dashed and white.
        title: written above.
        panel_width: of one camera, pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError, BadImageError: see `camera_shots`.
    """
    colors = {name: _color(number) for number, name in enumerate(rig.names)}
    given = None if boxes is None else _as_detections(boxes)
    shots = (
        [CameraShot(camera, None, camera.camera_to_vehicle.matrix()) for camera in rig.cameras]
        if moment is None
        else camera_shots(moment)
    )
    panels = {
        shot.camera.name: _panel(shot, given, colors[shot.camera.name], panel_width)
        for shot in shots
    }
    grid = join_rows([[panels[camera.name] for camera in row] for row in rows_by_view(rig)])
    size = max(grid.shape[0], _LEAST_ABOVE_PX)
    parts = [grid, draw_places(rig, colors, size)]
    if given is not None:
        parts.append(draw_boxes_of_rig(rig, colors, size, given))
    middle = join_rows([parts])
    header = [Entry(title or "what the calibration says", scale=0.5)]
    width = middle.shape[1]
    return np.vstack((strip(header, width, HEADER_PX), middle, strip(_LEGEND, width, LEGEND_PX)))


def _as_detections(boxes: ArrayLike) -> Detections:
    """Boxes (n, 7) as detections that stand still."""
    rows = torch.from_numpy(np.asarray(boxes, float).reshape(-1, 7))
    labels = torch.zeros(len(rows), dtype=torch.int64)
    return Detections(torch.nn.functional.pad(rows, (0, 2)), torch.ones(len(rows)), labels)


def _panel(shot: CameraShot, boxes: Detections | None, color: Color, width: int) -> Image:
    camera = shot.camera
    if shot.image is None:
        panel = empty_panel(camera.width, camera.height, width)
    else:
        panel = resized(shot.image, width)
    vehicle_to_image = to_panel(camera.width, width) @ shot.vehicle_to_image()
    draw_road(panel, vehicle_to_image, shot.camera_to_vehicle[:2, 2])
    if boxes is not None:
        draw_boxes(panel, boxes, vehicle_to_image, TRUTH_STYLE, BOX_NAMES)
    across, down = fields_of_view_deg(camera.intrinsics, camera.width, camera.height)
    x, y, z = camera.camera_to_vehicle.translation_m
    text = f"{camera.name}  {across:.0f} x {down:.0f} deg  at {x:.2f}, {y:.2f}, {z:.2f} m"
    draw_text(panel, text, (8, 18), color, background=BACKGROUND_COLOR)
    if shot.image is None:
        draw_text(panel, "no picture", (8, 36), background=BACKGROUND_COLOR)
    return panel


def _color(number: int) -> Color:
    known = list(CLASS_COLORS.values())
    return known[number % len(known)]
