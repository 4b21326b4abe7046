"""One picture of one moment: the cameras, the view from above, and a legend."""

from __future__ import annotations

import numpy as np
import torch

from streampetr_vit.data.annotations import has_points
from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.image_io import read_rgb
from streampetr_vit.data.nuscenes.records import FrameRecord
from streampetr_vit.structures import Detections, Pose
from streampetr_vit.visualization.bird_eye_view import draw_bird_eye_view
from streampetr_vit.visualization.camera_grid import camera_grid
from streampetr_vit.visualization.camera_panels import draw_cameras
from streampetr_vit.visualization.drawing import Image
from streampetr_vit.visualization.sheet import compose


def draw_record(
    record: FrameRecord,
    predictions: Detections | None,
    score_threshold: float = 0.25,
    range_m: float = 51.2,
    panel_width: int = 640,
    with_truth: bool = True,
) -> Image:
    """Draws a key frame with its detections and its true boxes.

    Args:
        record: the key frame; its pictures are read from disk, no lidar file is.
        predictions: boxes in the lidar frame; None draws none.
        score_threshold: weaker predictions are left out.
        range_m: half the width of the view from above.
        panel_width: width of one camera picture, pixels.
        with_truth: whether true boxes are drawn, see `visible_truth`.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    sizes = [tuple(size) for size in record.image_sizes.tolist()]
    images = [read_rgb(record.picture(camera), size) for camera, size in enumerate(sizes)]
    shown = None if predictions is None else above_threshold(predictions, score_threshold)
    truth = visible_truth(record, range_m) if with_truth else None
    lidar_to_image = FrameGeometry.of_record(record).lidar_to_image.numpy()
    spec = record.spec
    panels = draw_cameras(images, lidar_to_image, spec, shown, truth, panel_width)
    grid = camera_grid(panels, spec.cameras)
    forward = forward_in_lidar(record.lidar_to_ego)
    size_px = grid.shape[0]  # as high as the cameras beside it
    above = draw_bird_eye_view(spec.class_names, shown, truth, range_m, size_px, forward)
    count = 0 if truth is None else len(truth)
    header = [record.scene_name, f"{record.timestamp_us / 1e6:.2f} s", f"{count} true boxes"]
    if shown is not None:
        header.append(f"{len(shown)} detections of score {score_threshold:.2f} and more")
    return compose(grid, above, header, spec.class_names)


def forward_in_lidar(lidar_to_ego: Pose) -> tuple[float, float]:
    """The vehicle's forward direction, (x, y) in the plane of the lidar, a unit vector."""
    # The third part is the tilt, which a view from above does not show.
    x, y, _ = lidar_to_ego.rotation().inv().apply([1.0, 0.0, 0.0])
    length = float(np.hypot(x, y))
    return float(x) / length, float(y) / length


def above_threshold(detections: Detections, score_threshold: float) -> Detections:
    """The detections whose score is at least the threshold."""
    return detections[detections.scores >= score_threshold]


def visible_truth(record: FrameRecord, range_m: float) -> Detections:
    """The true boxes of a class, with points and within the range, as detections of score 1."""
    # The official evaluation scores no box without a lidar or radar point.
    seen = has_points(record.num_lidar_pts, record.num_radar_pts)
    near = np.abs(record.gt_boxes[:, :2]).max(axis=1, initial=0.0) <= range_m
    kept = (record.gt_labels >= 0) & seen & near
    boxes, labels = (
        torch.from_numpy(record.gt_boxes[kept]),
        torch.from_numpy(record.gt_labels[kept]),
    )
    return Detections(boxes, torch.ones(len(boxes)), labels)
