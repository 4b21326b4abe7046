"""Pictures of a rig: the road as a grid in each camera, and the cameras from above.

What is drawn comes from the calibration alone. Where it is right, the grid lies on the road, its
lines run along the lanes, and the horizon is the horizon of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike

from streampetr_vit.structures import Camera, Detections, Objects, Rig, invert_rigid
from streampetr_vit.structures.lens_checks import fields_of_view_deg
from streampetr_vit.visualization.camera_view import (
    PREDICTION_STYLE,
    TRUTH_STYLE,
    camera_grid,
    draw_boxes,
)
from streampetr_vit.visualization.colors import BACKGROUND_COLOR, CLASS_COLORS, Color
from streampetr_vit.visualization.drawing import FloatArray, Image, draw_line, draw_text
from streampetr_vit.visualization.rig_plan import draw_boxes_plan, draw_plan
from streampetr_vit.visualization.road_grid import (
    FORWARD_COLOR,
    GRID_COLOR,
    HORIZON_COLOR,
    RING_COLOR,
    draw_road,
)

_GREY: Color = (84, 90, 98)  # where there is no picture
_GAP_PX, _HEADER_PX, _LEGEND_PX = 4, 26, 26


def draw_rig(
    rig: Rig,
    pictures: Mapping[str, Image | None] | None = None,
    objects: Objects | None = None,
    boxes: ArrayLike | None = None,
    title: str = "",
    panel_width: int = 480,
) -> Image:
    """Draws what a calibration says, on pictures of one moment.

    Args:
        rig: the cameras, which count as pinhole cameras: give those of straight pictures.
        pictures: camera -> (H, W, 3) uint8 RGB; a camera without one is drawn on grey.
        objects: drawn in the colours of their classes, in whichever frame they are.
        boxes: (n, 7 or more) in the vehicle frame, drawn dashed and white.
        title: written above.
        panel_width: of one camera, pixels.

    Returns:
        (H', W', 3) uint8 RGB.
    """
    drawn = _Drawn(objects, None if boxes is None else np.atleast_2d(np.asarray(boxes, float)))
    cameras = sorted(rig.cameras, key=_place_in_grid)
    colors = dict(zip(rig.names, _colors(len(cameras)), strict=True))
    panels = [
        _panel(camera, (pictures or {}).get(camera.name), drawn, colors[camera.name], panel_width)
        for camera in cameras
    ]
    grid = camera_grid(panels, [camera.name for camera in cameras], gap_px=_GAP_PX)
    size = max(grid.shape[0], panel_width)
    plans = [draw_plan(rig, colors, size)]
    if len(found := drawn.in_vehicle()):
        plans.append(draw_boxes_plan(rig, colors, size, found))
    return _compose(grid, plans, title or "what the calibration says")


@dataclass(frozen=True)
class _Drawn:
    """Boxes that are drawn, from wherever they come."""

    objects: Objects | None
    boxes: FloatArray | None

    def on(self, image: Image, vehicle_to_image: FloatArray) -> None:
        if self.boxes is not None:
            found = _as_detections(self.boxes)
            draw_boxes(image, found, vehicle_to_image, TRUTH_STYLE, ("box",))
        if self.objects is not None:
            matrix = vehicle_to_image @ self.objects.reference_to_vehicle.matrix()
            names = self.objects.spec.class_names
            found = self.objects.detections.to("cpu")
            draw_boxes(image, found, matrix, PREDICTION_STYLE, names)

    def in_vehicle(self) -> FloatArray:
        """(n, 7) centre, size and yaw."""
        found = [] if self.boxes is None else [self.boxes[:, :7]]
        if self.objects is not None:
            seen = self.objects.to("vehicle")
            found.append(np.column_stack((seen.centers, seen.sizes, seen.yaws)))
        return np.concatenate(found) if found else np.empty((0, 7))


def _as_detections(boxes: FloatArray) -> Detections:
    count = len(boxes)
    return Detections(
        torch.from_numpy(boxes), torch.ones(count), torch.zeros(count, dtype=torch.int64)
    )


def _colors(count: int) -> list[Color]:
    known = list(CLASS_COLORS.values())
    return [known[number % len(known)] for number in range(count)]


def _place_in_grid(camera: Camera) -> tuple[bool, float]:
    """Those that look ahead first; left to right, as a driver who turns the head sees them."""
    x, y = camera.camera_to_vehicle.matrix()[:2, 2]
    yaw = float(np.arctan2(y, x))
    ahead = np.cos(yaw) > -0.2
    return not ahead, -yaw if ahead else yaw % (2 * np.pi)


def _panel(camera: Camera, picture: Image | None, drawn: _Drawn, color: Color, width: int) -> Image:
    scale = width / camera.width
    size = (width, max(1, round(camera.height * scale)))
    panel = np.full((size[1], width, 3), _GREY, np.uint8)
    if picture is not None:
        interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
        panel[:] = cv2.resize(picture, size, interpolation=interpolation)
    # Pixel centres are at integer coordinates: u' = scale * (u + 0.5) - 0.5.
    resize = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5], [0, 0, 1]])
    vehicle_to_image = np.eye(4)
    vehicle_to_image[:3, :3] = resize @ camera.intrinsics
    to_camera = invert_rigid(torch.from_numpy(camera.camera_to_vehicle.matrix())).numpy()
    vehicle_to_image = vehicle_to_image @ to_camera
    draw_road(panel, vehicle_to_image, camera.camera_to_vehicle.matrix()[:2, 2])
    drawn.on(panel, vehicle_to_image)
    across, down = fields_of_view_deg(camera.intrinsics, camera.width, camera.height)
    x, y, z = camera.camera_to_vehicle.translation_m
    text = f"{camera.name}  {across:.0f} x {down:.0f} deg  at {x:.2f}, {y:.2f}, {z:.2f} m"
    draw_text(panel, text, (8, 18), color, background=BACKGROUND_COLOR)
    if picture is None:
        draw_text(panel, "no picture", (8, 36), background=BACKGROUND_COLOR)
    return panel


def _compose(grid: Image, plans: Sequence[Image], title: str) -> Image:
    """Cameras on the left, views from above on the right, a header and a legend."""
    size = len(plans[0])  # they are square
    width = grid.shape[1] + len(plans) * (_GAP_PX + size)
    picture = np.empty((_HEADER_PX + size + _LEGEND_PX, width, 3), np.uint8)
    picture[:] = BACKGROUND_COLOR
    picture[_HEADER_PX : _HEADER_PX + grid.shape[0], : grid.shape[1]] = grid
    for number, plan in enumerate(plans):
        left = grid.shape[1] + _GAP_PX + number * (size + _GAP_PX)
        picture[_HEADER_PX : _HEADER_PX + size, left : left + size] = plan
    draw_text(picture, title, (10, 18), scale=0.5)
    _draw_legend(picture[_HEADER_PX + size :])
    return picture


def _draw_legend(strip: Image) -> None:
    left, middle = 10.0, strip.shape[0] / 2
    entries: Sequence[tuple[str, Color, float]] = (
        ("road z = 0, lines 5 m apart along the vehicle's x and y", GRID_COLOR, 0.0),
        ("distance from the vehicle's origin", RING_COLOR, 0.0),
        ("horizon", HORIZON_COLOR, 6.0),
        ("forward (x), 40 m", FORWARD_COLOR, 0.0),
    )
    for text, color, dash_px in entries:
        start = np.array([left, middle])
        draw_line(strip, start, start + np.array([28.0, 0.0]), color, 2, dash_px)
        left += 36 + draw_text(strip, text, (left + 36, middle + 5)) + 26
