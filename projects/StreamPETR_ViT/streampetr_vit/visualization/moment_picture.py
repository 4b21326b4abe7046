"""One picture of a moment of any car: its cameras, the view from above, and a legend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from streampetr_vit.structures import Detections, Moment, Objects, Rig
from streampetr_vit.visualization.bird_eye_view import VEHICLE_OUTLINE_M, draw_bird_eye_view
from streampetr_vit.visualization.camera_grid import join_rows, rows_by_view
from streampetr_vit.visualization.camera_panels import draw_camera, draw_missing
from streampetr_vit.visualization.camera_shots import CameraShot, camera_shots
from streampetr_vit.visualization.camera_view import with_styles
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.sheet import compose
from streampetr_vit.visualization.track_marks import TrackMarks


def draw_moment(
    moment: Moment,
    objects: Objects,
    score_threshold: float = 0.25,
    range_m: float = 51.2,
    panel_width: int = 640,
) -> Image:
    """Draws what the cameras saw and what was found.

    Args:
        moment: with straight pictures, see `camera_shots`. A camera without one is a dark panel.
        objects: of this moment, in any frame. Where a tracker was at work, ids, ages and trails are
            drawn.
        score_threshold: weaker objects are left out.
        range_m: half the width of the view from above, which is in the frame of the vehicle.
        panel_width: width of the widest camera picture, pixels; all are of one height.

    Returns:
        (H, W, 3) uint8 RGB; moments of one rig have pictures of one size.

    Raises:
        InputError, BadImageError: see `camera_shots`.
    """
    found = objects[objects.scores >= score_threshold]
    widths = _panel_widths(moment.rig, panel_width)
    marks = TrackMarks.in_vehicle(found)
    panels = {
        shot.camera.name: _panel(shot, found, marks, widths[shot.camera.name])
        for shot in camera_shots(moment)
    }
    rows = [[panels[camera.name] for camera in row] for row in rows_by_view(moment.rig)]
    cameras = join_rows(rows)
    above = draw_bird_eye_view(
        found.spec.class_names,
        _in_vehicle(found),
        range_m=range_m,
        size_px=cameras.shape[0],  # as high as the cameras beside it
        forward=(1.0, 0.0),
        outline_m=VEHICLE_OUTLINE_M,
        marks=marks,
    )
    count = f"{len(found)} object{'s' * (len(found) != 1)} of score {score_threshold:.2f} and more"
    header = [moment.scene, f"{moment.timestamp_s:.2f} s", count]
    if objects.starts_scene:
        header.append("starts anew")
    return compose(cameras, above, header, found.spec.class_names, with_truth=False)


def _panel_widths(rig: Rig, panel_width: int) -> dict[str, int]:
    """Widths with which all pictures are of one height, for each camera."""
    shares = {camera.name: camera.width / camera.height for camera in rig.cameras}
    widest = max(shares.values())
    return {name: max(1, round(panel_width * share / widest)) for name, share in shares.items()}


def _panel(shot: CameraShot, found: Objects, marks: TrackMarks | None, panel_width: int) -> Image:
    camera = shot.camera
    if shot.image is None:
        return draw_missing(camera.name, camera.width, camera.height, panel_width)
    # From the frame of the detections: boxes keep the tilt that they have on the vehicle.
    matrix = shot.vehicle_to_image() @ found.reference_to_vehicle.matrix()
    boxes = with_styles(found.detections, None, marks)
    names = found.spec.class_names
    return draw_camera(shot.image, matrix, camera.name, boxes, names, panel_width)


def _in_vehicle(objects: Objects) -> Detections:
    """The boxes in the frame of the vehicle."""
    there = objects.to("vehicle")
    columns = (there.centers, there.sizes, there.yaws[:, None], there.velocities)
    boxes = torch.from_numpy(np.concatenate(columns, axis=1))  # (n, 9)
    return replace(objects.detections, boxes=boxes)
