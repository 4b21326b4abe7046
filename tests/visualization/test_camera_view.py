"""Boxes land where the camera sees them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.data.nuscenes.spec import NUSCENES
from streampetr_vit.structures import DatasetSpec, Detections
from streampetr_vit.visualization.camera_grid import GRID_ORDER, camera_grid
from streampetr_vit.visualization.camera_panels import draw_cameras, to_panel
from streampetr_vit.visualization.camera_view import (
    PREDICTION_STYLE,
    TRUTH_STYLE,
    draw_boxes,
    project_boxes,
)
from streampetr_vit.visualization.colors import CLASS_COLORS

# A camera in the lidar's origin that looks along +y (forward), 100 px focal length, 200x120 px.
CAMERA = np.array([[100.0, 100, 0, 0], [0, 60, -100, 0], [0, 1, 0, 0], [0, 0, 0, 1]])

CLASSES = NUSCENES.class_names


def _one_camera(name: str) -> DatasetSpec:
    return replace(NUSCENES, cameras=[name])


def _box(x: float, y: float, yaw: float = 0.0, label: int = 0) -> Detections:
    box = torch.tensor([[x, y, 0.0, 4.0, 2.0, 1.6, yaw, 0.0, 0.0]])
    return Detections(box, torch.tensor([0.5]), torch.tensor([label]))


def _black() -> np.ndarray:
    return np.zeros((120, 200, 3), np.uint8)


def test_corners_in_closed_form() -> None:
    corners = project_boxes(_box(0, 10).boxes, CAMERA)
    assert corners.shape == (1, 8, 3)
    pixels = corners[0, :, :2] / corners[0, :, 2:]
    # Length 4 m along x, near side at 9 m, far side at 11 m; 0.8 m up and down.
    assert np.allclose(sorted(set(corners[0, :, 2].round(9))), [9, 11])
    assert np.isclose(pixels[:, 0].max(), 100 + 100 * 2 / 9)
    assert np.isclose(pixels[:, 1].min(), 60 - 100 * 0.8 / 9)


def test_box_is_drawn_in_its_colour_inside_its_outline() -> None:
    image = _black()
    draw_boxes(image, _box(0, 10), CAMERA, PREDICTION_STYLE, CLASSES)
    rows, columns = np.nonzero((image == CLASS_COLORS["car"]).all(axis=2))
    assert len(rows) > 50
    assert columns.min() >= 77 - 2 and columns.max() <= 123 + 2
    assert rows.max() <= 69 + 2


def test_boxes_behind_the_camera_are_not_drawn() -> None:
    image = _black()
    draw_boxes(image, _box(0, -10), CAMERA, PREDICTION_STYLE, CLASSES)
    assert not image.any()


def test_box_around_the_camera_is_cut_at_the_near_plane() -> None:
    """Its edges start behind the camera and end in front of it."""
    image = _black()
    draw_boxes(image, _box(0, 1.5, yaw=np.pi / 2), CAMERA, TRUTH_STYLE, CLASSES)
    assert image.any()
    rows, columns = np.nonzero(image[:, :, 0])
    # The far side at 3.5 m, 2 m wide, is in the middle of the picture.
    assert abs(columns.mean() - 100) < 3 and abs(rows.mean() - 60) < 8


def test_enlarging_moves_boxes_with_the_picture() -> None:
    """A bright block in the picture stays inside the box drawn around it, at any width."""
    picture = _black()
    picture[51:69, 78:122] = 90
    for width in (100, 200, 640):
        (panel,) = draw_cameras(
            [picture], CAMERA[None], _one_camera("CAM_FRONT"), None, _box(0, 10), width
        )
        scale = width / 200
        assert panel.shape == (round(120 * scale), width, 3)
        lines = np.nonzero((panel > 230).all(axis=2)[int(25 * scale) :])[1]
        assert abs(lines.min() - (78 * scale + 0.5 * scale - 0.5)) <= 2 + scale
        assert abs(lines.max() - (122 * scale + 0.5 * scale - 0.5)) <= 2 + scale


def test_grid_order() -> None:
    panels = [np.full((10, 20, 3), 10 * (k + 1), np.uint8) for k in range(6)]
    grid = camera_grid(panels, NUSCENES.cameras, gap_px=0)
    assert grid.shape == (20, 60, 3)
    shown = [int(grid[r, c, 0]) for r in (5, 15) for c in (10, 30, 50)]
    assert [NUSCENES.cameras[value // 10 - 1] for value in shown] == list(GRID_ORDER)


def test_grid_of_other_rigs() -> None:
    panels = [np.full((10, 20, 3), k, np.uint8) for k in (1, 2, 3, 4)]
    grid = camera_grid(panels, ["LEFT", "RIGHT", "REAR", "TOP"], gap_px=0)
    assert grid.shape == (20, 60, 3)
    assert [int(grid[5, c, 0]) for c in (10, 30, 50)] == [1, 2, 3]
    assert int(grid[15, 30, 0]) == 4  # a short row is in the middle


def test_corners_equal_the_devkit_projection(tiny_nuscenes: Path) -> None:
    """Through the camera's own ego pose, for every camera of a sample."""
    from nuscenes import NuScenes
    from nuscenes.utils.geometry_utils import BoxVisibility, view_points

    record = load_split(tiny_nuscenes, "v1.0-mini", "mini_val")[1]
    matrices = FrameGeometry.of_record(record).lidar_to_image.numpy()
    devkit = NuScenes("v1.0-mini", str(tiny_nuscenes), verbose=False)
    tokens = devkit.get("sample", record.token)["data"]
    compared = 0
    for matrix, name in zip(matrices, NUSCENES.cameras, strict=True):
        ours = project_boxes(record.gt_boxes, matrix)  # (n, 8, 3)
        _, boxes, intrinsic = devkit.get_sample_data(tokens[name], BoxVisibility.NONE)
        for corners, box in zip(ours, boxes, strict=True):
            if corners[:, 2].min() < 1.0:
                continue
            theirs = view_points(box.corners(), intrinsic, normalize=True)[:2].T
            distance = np.linalg.norm(
                theirs[:, None] - (corners[:, :2] / corners[:, 2:])[None], axis=2
            )
            # The devkit numbers the corners in another order.
            assert distance.min(axis=1).max() < 0.05, (name, box.name)
            compared += 1
    assert compared > 10


def test_draw_cameras_keeps_its_input() -> None:
    picture = _black()
    detections = _box(0, 10, label=3)
    (panel,) = draw_cameras(
        [picture], CAMERA[None], _one_camera("CAM_BACK"), detections, panel_width=200
    )
    assert panel.any() and not picture.any()


def test_the_edges_of_a_picture_are_those_of_its_panel() -> None:
    u, v, depth, _ = to_panel(1600, 400) @ (np.array([1599.5, -0.5, 1, 0]) * 7.0)
    assert (u / depth, v / depth, depth) == pytest.approx((399.5, -0.5, 7.0))
