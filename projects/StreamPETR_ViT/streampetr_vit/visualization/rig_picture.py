"""Pictures of a rig: the road as a grid in each camera, and the cameras from above.

What is drawn comes from the calibration alone. Where it is right, the grid lies on the road, its
lines run along the lanes, and the horizon is the horizon of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import Detections, Moment, Objects, Rig
from streampetr_vit.structures.lens_checks import fields_of_view_deg
from streampetr_vit.visualization.camera_grid import join_rows, rows_by_view
from streampetr_vit.visualization.camera_shots import CameraShot, camera_shots
from streampetr_vit.visualization.camera_view import PREDICTION_STYLE, TRUTH_STYLE, draw_boxes
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, CLASS_COLORS, Color
from streampetr_vit.visualization.drawing import FloatArray, Image, draw_text
from streampetr_vit.visualization.rig_plan import draw_boxes_plan, draw_plan
from streampetr_vit.visualization.road_grid import (
    FORWARD_COLOR,
    FORWARD_M,
    GRID_COLOR,
    GRID_STEP_M,
    HORIZON_COLOR,
    RING_COLOR,
    draw_road,
)
from streampetr_vit.visualization.sheet import GAP_PX, HEADER_PX, LEGEND_PX, Entry, strip

_GREY: Color = (84, 90, 98)  # where there is no picture
_LEAST_PLAN_PX = 400
_LEGEND = (
    Entry(f"road (z = 0), a line each {GRID_STEP_M:.0f} m of the vehicle's x and y", GRID_COLOR),
    Entry("distance from the vehicle's origin", RING_COLOR),
    Entry("horizon", HORIZON_COLOR, dashed=True),
    Entry(f"forward (x), {FORWARD_M:.0f} m", FORWARD_COLOR),
)


def draw_rig(
    rig: Rig,
    moment: Moment | None = None,
    objects: Objects | None = None,
    boxes: ArrayLike | None = None,
    title: str = "",
    panel_width: int = 480,
) -> Image:
    """Draws what a calibration says.

    Args:
        rig: the cameras, which count as pinhole cameras: give those of straight pictures.
        moment: of this rig, with straight pictures, see `camera_shots`; a camera without a picture
            is drawn on grey. None draws all of them so.
        objects: of the moment, in any frame; drawn in the colours of their classes.
        boxes: (n, 7 or more) in the vehicle frame; drawn dashed and white.
        title: written above.
        panel_width: of one camera, pixels.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError, BadImageError: see `camera_shots`.
    """
    colors = {name: _color(number) for number, name in enumerate(rig.names)}
    given = None if boxes is None else np.asarray(boxes, float).reshape(-1, np.shape(boxes)[-1])
    found = _Found(objects, given)
    shots = (
        [CameraShot(camera, None, camera.camera_to_vehicle.matrix()) for camera in rig.cameras]
        if moment is None
        else camera_shots(moment)
    )
    panels = {
        shot.camera.name: _panel(shot, found, colors[shot.camera.name], panel_width)
        for shot in shots
    }
    grid = join_rows([[panels[c.name] for c in row] for row in rows_by_view(rig)], GAP_PX)
    size = max(grid.shape[0], _LEAST_PLAN_PX)
    parts = [_centred(grid, size), draw_plan(rig, colors, size)]
    if found:
        parts.append(draw_boxes_plan(rig, colors, size, found.in_vehicle()))
    middle = join_rows([parts], GAP_PX)
    header = strip(
        [Entry(title or "what the calibration says", scale=0.5)], len(middle[0]), HEADER_PX
    )
    return np.vstack((header, middle, strip(_LEGEND, len(middle[0]), LEGEND_PX)))


@dataclass(frozen=True)
class _Found:
    """Boxes that are drawn, from wherever they come."""

    objects: Objects | None
    boxes: FloatArray | None

    def __bool__(self) -> bool:
        return self.objects is not None or self.boxes is not None

    def draw(self, image: Image, vehicle_to_image: FloatArray) -> None:
        if self.boxes is not None:
            count = len(self.boxes)
            labels = torch.zeros(count, dtype=torch.int64)
            plain = Detections(torch.from_numpy(self.boxes), torch.ones(count), labels)
            draw_boxes(image, plain, vehicle_to_image, TRUTH_STYLE, ("box",))
        if self.objects is not None:
            matrix = vehicle_to_image @ self.objects.reference_to_vehicle.matrix()
            names, found = self.objects.spec.class_names, self.objects.detections.to("cpu")
            draw_boxes(image, found, matrix, PREDICTION_STYLE, names)

    def in_vehicle(self) -> FloatArray:
        """(n, 7) centre, size and yaw."""
        found = [np.empty((0, 7))] if self.boxes is None else [self.boxes[:, :7]]
        if self.objects is not None:
            seen = self.objects.to("vehicle")
            found.append(np.column_stack((seen.centers, seen.sizes, seen.yaws)))
        return np.concatenate(found)


def _panel(shot: CameraShot, found: _Found, color: Color, width: int) -> Image:
    camera, scale = shot.camera, width / shot.camera.width
    size = (width, max(1, round(camera.height * scale)))
    panel = np.empty((size[1], width, 3), np.uint8)
    panel[:] = _GREY
    if shot.image is not None:
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        panel[:] = cv2.resize(shot.image, size, interpolation=interpolation)
    # Pixel centres are at integer coordinates: u' = scale * (u + 0.5) - 0.5.
    resize = np.diag([scale, scale, 1.0, 1.0])
    resize[:2, 2] = 0.5 * scale - 0.5
    vehicle_to_image = resize @ shot.vehicle_to_image()
    draw_road(panel, vehicle_to_image, shot.camera_to_vehicle[:2, 2])
    found.draw(panel, vehicle_to_image)
    across, down = fields_of_view_deg(camera.intrinsics, camera.width, camera.height)
    x, y, z = camera.camera_to_vehicle.translation_m
    text = f"{camera.name}  {across:.0f} x {down:.0f} deg  at {x:.2f}, {y:.2f}, {z:.2f} m"
    draw_text(panel, text, (8, 18), color, background=BACKGROUND_COLOR)
    if shot.image is None:
        draw_text(panel, "no picture", (8, 36), background=BACKGROUND_COLOR)
    return panel


def _centred(grid: Image, height: int) -> Image:
    """The cameras in the middle of a picture that may be higher."""
    image = np.empty((height, grid.shape[1], 3), np.uint8)
    image[:] = BACKGROUND_COLOR
    top = (height - grid.shape[0]) // 2
    image[top : top + grid.shape[0]] = grid
    return image


def _color(number: int) -> Color:
    known = list(CLASS_COLORS.values())
    return known[number % len(known)]
