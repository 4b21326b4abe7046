"""2D boxes of the stored pictures: closed forms, the devkit's chain of poses, and shapely."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import handmade_tables
import numpy as np
import pytest
import torch
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion
from scipy.spatial.transform import Rotation
from shapely.geometry import MultiPoint, box

from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import CONVERTER_CLASS_NAMES, NUSCENES
from streampetr_vit.data.projected_boxes import bounds_in_picture, boxes2d_of_record

WIDTH, HEIGHT = 1600, 900


def _shapely_bounds(points: np.ndarray, size: tuple[float, float]) -> tuple[float, ...] | None:
    """Bound of hull and picture's intersection, None where it is no polygon."""
    cut = MultiPoint(points).convex_hull.intersection(box(0, 0, *size))
    return cut.bounds if cut.geom_type == "Polygon" and cut.area > 0 else None


def _expected(corners: np.ndarray, center: np.ndarray, intrinsics: np.ndarray, size) -> list | None:
    """2D box, centre and depth by the rules, from (3, 8) corners in the camera frame, or None."""
    front = corners[:, corners[2] > 0]
    if center[2] <= 0 or not front.shape[1]:
        return None
    image = intrinsics @ np.column_stack((front, center))
    pixels = (image[:2] / image[2]).T
    bounds = _shapely_bounds(pixels[:-1], size)
    if bounds is None or bounds[2] - bounds[0] < 1 or bounds[3] - bounds[1] < 1:
        return None
    return [*bounds, *pixels[-1], center[2]]


def _record(record: FrameRecord, boxes: np.ndarray, rotation: np.ndarray, **changes) -> FrameRecord:
    """A record whose boxes are (x, y, z, l, w, h) rows."""
    count = len(boxes)
    values = {
        "gt_boxes": np.concatenate((boxes, np.zeros((count, 3))), axis=1),
        "gt_rotation": rotation,
        "gt_labels": np.arange(count) % len(NUSCENES.class_names),
        "num_lidar_pts": np.zeros(count, np.int32),
        "num_radar_pts": np.zeros(count, np.int32),
        "instance": np.arange(count, dtype=np.int32),
    }
    return dataclasses.replace(record, **{**values, **changes})


def _camera_at_lidar(record: FrameRecord, boxes: list, rotation: list, **changes) -> FrameRecord:
    """Six cameras in the place of the lidar, with focal length 100 and pictures of 160x90."""
    return _record(
        record,
        np.array(boxes, dtype=np.float64),
        np.array(rotation, dtype=np.float64),
        camera_to_lidar=np.tile(np.eye(4), (6, 1, 1)),
        camera_intrinsics=np.tile([[100.0, 0, 80], [0, 100, 45], [0, 0, 1]], (6, 1, 1)),
        **changes,
    )


UPRIGHT = [1.0, 0, 0, 0]
LYING = [np.sqrt(0.5), np.sqrt(0.5), 0, 0]  # a quarter turn about x: height along -y, width along z


def _rows(boxes) -> np.ndarray:
    """(n, 7) of a camera: box, centre, depth."""
    return torch.cat((boxes.corners, boxes.centers, boxes.depths[:, None]), dim=1).numpy()


def test_closed_form_of_a_tilted_box(handmade_records: FrameRecords) -> None:
    # x in [0, 2], y in [-1, 5], z in [8, 12]; the near face is all that counts.
    record = _camera_at_lidar(handmade_records[0], [[1, 2, 10, 2, 4, 6]], [LYING])
    for boxes in boxes2d_of_record(record):
        np.testing.assert_allclose(_rows(boxes), [[80, 32.5, 105, 90, 90, 65, 10]], rtol=1e-6)
    boxes = boxes2d_of_record(record)[0]
    types = {boxes.corners.dtype, boxes.centers.dtype, boxes.depths.dtype}
    assert types == {torch.float32} and boxes.labels.dtype == torch.int64


def test_what_is_left_out(handmade_records: FrameRecords) -> None:
    """Each rule at its limit, in annotation order; range and sensor points do not count."""
    cube = [2, 2, 2]
    rows = [
        [0, 0, 90, *cube],  # far beyond any range, without points: stays
        [0, 0, -10, *cube],  # behind
        [0, 0, 0, *cube],  # its centre in the plane of the camera
        [0, 0, 1e-3, *cube],  # just in front of it: fills the picture
        [0, 0, 20, *cube],  # of a category that is no class
        [40, 0, 20, *cube],  # beside the picture
        [0, 0, 10, 0.02, 1, 0.1],  # a little more than a pixel wide at its near face
        [0, 0, 10.02, 0.02, 1, 0.1],  # a little less
        [16.5, 0, 20, *cube],  # its centre outside the picture
    ]
    labels = np.array([8, 0, 0, 1, -1, 0, 2, 0, 5])
    standing = [np.sqrt(0.5), 0, np.sqrt(0.5), 0]  # about y: length along -z, height along x
    rotation = [UPRIGHT] * 6 + [standing] * 2 + [UPRIGHT]
    record = _camera_at_lidar(handmade_records[0], rows, rotation, gt_labels=labels)
    boxes = boxes2d_of_record(record)[3]
    assert boxes.labels.tolist() == [8, 1, 2, 5]
    assert boxes.corners[1].tolist() == [0, 0, 160, 90]
    assert boxes.corners[2, 2] - boxes.corners[2, 0] == pytest.approx(10 / 9.99, abs=1e-4)
    assert boxes.centers[3].tolist() == pytest.approx([162.5, 45])
    none = dataclasses.replace(record, gt_labels=np.full(len(rows), -1))
    for empty in boxes2d_of_record(none):
        assert empty.corners.shape == (0, 4) and empty.centers.shape == (0, 2)
        assert empty.labels.dtype == torch.int64 and len(empty.depths) == 0


def test_tilted_tables_equal_the_devkits_chain(tmp_path: Path) -> None:
    """Box -> car at the camera's own time -> camera, with a car and boxes that lean heavily."""
    tables = handmade_tables.make_tables()
    tilt = Quaternion(axis=(1, 0, 0), radians=0.4) * Quaternion(axis=(0, 1, 0), radians=-0.3)
    for name in ("ego_pose", "sample_annotation"):
        for row in tables[name]:
            row["rotation"] = (Quaternion(row["rotation"]) * tilt).elements.tolist()
    records = load_records(handmade_tables.write_tables(tables, tmp_path), "v1.0-mini")
    index = {name: {row["token"]: row for row in tables[name]} for name in tables}
    seen = 0
    for record in records:
        rows = [r for r in tables["sample_annotation"] if r["sample_token"] == record.token]
        mapped = [row for row, label in zip(rows, record.gt_labels, strict=True) if label >= 0]
        for camera, boxes in zip(NUSCENES.cameras, boxes2d_of_record(record), strict=True):
            data = index["sample_data"][f"{record.token}-{camera}-True"]
            calibration = index["calibrated_sensor"][data["calibrated_sensor_token"]]
            expected = []
            for row in mapped:
                moved = Box(row["translation"], row["size"], Quaternion(row["rotation"]))
                for pose in (index["ego_pose"][data["ego_pose_token"]], calibration):
                    moved.translate(-np.array(pose["translation"]))
                    moved.rotate(Quaternion(pose["rotation"]).inverse)
                intrinsics = np.array(calibration["camera_intrinsic"])
                expected.append(
                    _expected(moved.corners(), moved.center, intrinsics, (data["width"], 90))
                )
            kept = np.array([row for row in expected if row is not None]).reshape(-1, 7)
            np.testing.assert_allclose(_rows(boxes), kept, rtol=1e-5, atol=1e-3)
            labels = record.gt_labels[record.gt_labels >= 0]
            assert boxes.labels.tolist() == labels[[r is not None for r in expected]].tolist()
            seen += len(kept)
    assert seen > 20


def test_random_boxes_equal_shapely(handmade_records: FrameRecords) -> None:
    """Boxes of any orientation all around six cameras, many of them cut by a camera's plane."""
    rng = np.random.default_rng(0)
    count = 900
    center = rng.uniform(-1, 1, (count, 3)) * rng.choice([4, 15, 50], (count, 1))
    rows = np.concatenate((center, rng.uniform(0.3, 9, (count, 3))), axis=1)
    rotation = rng.normal(size=(count, 4))
    rotation /= np.linalg.norm(rotation, axis=1, keepdims=True)
    cameras = np.tile(np.eye(4), (6, 1, 1))
    cameras[:, :3, :3] = Rotation.from_quat(rng.normal(size=(6, 4))).as_matrix()
    cameras[:, :3, 3] = rng.uniform(-1, 1, (6, 3))
    intrinsics = np.tile([[1260.0, 0, 810], [0, 1255, 470], [0, 0, 1]], (6, 1, 1))
    sizes = np.array([[1600, 900]] * 3 + [[800, 450]] * 3)
    record = _record(
        handmade_records[0],
        rows,
        rotation,
        camera_to_lidar=cameras,
        camera_intrinsics=intrinsics,
        image_sizes=sizes,
    )
    seen = crossing = tighter = 0
    for camera, boxes in enumerate(boxes2d_of_record(record)):
        expected = []
        for row, wxyz in zip(rows, rotation, strict=True):
            moved = Box(row[:3], row[[4, 3, 5]], Quaternion(wxyz))
            moved.translate(-cameras[camera, :3, 3])
            moved.rotate(Quaternion(matrix=cameras[camera, :3, :3], atol=1e-6).inverse)
            corners = moved.corners()
            expected.append(_expected(corners, moved.center, intrinsics[camera], sizes[camera]))
            if expected[-1] is not None:
                front = corners[:, corners[2] > 0]
                pixels = (intrinsics[camera] @ front)[:2] / front[2]
                clipped = pixels.clip(0, sizes[camera][:, None])
                bound = [*clipped.min(axis=1), *clipped.max(axis=1)]
                tighter += np.abs(np.subtract(bound, expected[-1][:4])).max() > 1
                crossing += front.shape[1] < 8
        kept = np.array([row for row in expected if row is not None])
        np.testing.assert_allclose(_rows(boxes), kept, rtol=1e-6, atol=1e-4)
        labels = record.gt_labels[[row is not None for row in expected]]
        assert boxes.labels.tolist() == labels.tolist()
        seen += len(kept)
    # What the test is about does occur.
    assert seen > 600 and crossing > 100 and tighter > 100, (seen, crossing, tighter)


def test_random_hulls_equal_shapely() -> None:
    rng = np.random.default_rng(3)
    count = 3000
    points = rng.normal(size=(count, 8, 2)) * rng.choice([3, 300, 3000, 1e7], (count, 1, 1))
    points += rng.uniform([-500, -500], [2100, 1400], (count, 2))[:, None]
    valid = rng.random((count, 8)) < rng.choice([0.1, 0.8], (count, 1))
    bounds = bounds_in_picture(points, valid, np.tile([WIDTH, HEIGHT], (count, 1)))
    none = 0
    for hull, which, actual in zip(points, valid, bounds, strict=True):
        expected = _shapely_bounds(hull[which], (WIDTH, HEIGHT)) if which.any() else None
        none += expected is None
        np.testing.assert_allclose(
            actual, [np.nan] * 4 if expected is None else expected, atol=1e-6
        )
    assert 500 < none < 2500


@pytest.mark.parametrize(
    "points",
    [
        [[100, 100]],
        [[100, 100], [300, 200]],
        [[100, 100], [200, 200], [300, 300]],  # on one line, in the picture
        [[-100, -100], [100, 100], [2000, 2000]],  # on one line, across it
        [[-5, 10], [0, 20], [0, 30], [-5, 40]],  # touches the left side
        [[1600, 900], [1700, 900], [1700, 1000]],  # touches a corner
        [[-10, -10], [1610, -10], [1610, -20]],  # beside
        [[-90, 10], [10, -90], [-90, -90]],  # its bound meets the picture, the hull does not
        [[-10, -10], [1610, -10], [1610, 910], [-10, 910]],  # covers the picture
        [[0, 0], [1600, 0], [1600, 900], [0, 900]],  # is the picture
        [[0, -50], [100, -50], [100, 950], [0, 950]],  # a side on a side of the picture
        [[-800, 900], [800, -900], [2400, 900], [800, 2700]],  # sides through the corners
        [[100, 50], [200, 50], [200, 80], [100, 80], [100, 50]],  # upright, one point twice
        [[1500, -100], [1700, 300], [1500, 100]],
        [[800, -3e8], [801, 5e8], [802, 1e3]],  # a corner almost in the plane of the camera
    ],
    ids=str,
)
def test_special_hulls_equal_shapely(points: list[list[float]]) -> None:
    padded = np.zeros((1, 8, 2))
    padded[0, : len(points)] = points
    valid = np.arange(8)[None] < len(points)
    actual = bounds_in_picture(padded, valid, np.array([[WIDTH, HEIGHT]]))[0]
    expected = _shapely_bounds(np.array(points, dtype=np.float64), (WIDTH, HEIGHT))
    np.testing.assert_allclose(actual, [np.nan] * 4 if expected is None else expected, atol=1e-6)


def test_class_orders(handmade_records: FrameRecords) -> None:
    assert sorted(CONVERTER_CLASS_NAMES) == sorted(NUSCENES.class_names)
    rows = [[0, 0, 10 + n, 2, 2, 2] for n in range(len(NUSCENES.class_names))]
    record = _camera_at_lidar(handmade_records[0], rows, [UPRIGHT] * len(rows))
    for names in (NUSCENES.class_names, CONVERTER_CLASS_NAMES):
        labels = boxes2d_of_record(record, names)[0].labels.tolist()
        assert [names[label] for label in labels] == list(NUSCENES.class_names)
    assert boxes2d_of_record(record, CONVERTER_CLASS_NAMES)[0].labels.tolist() == [
        *(0, 1, 4, 3, 2, 9, 6, 5, 7, 8)
    ]
    few = boxes2d_of_record(record, ("barrier", "car"))[0]
    assert few.labels.tolist() == [1, 0]
    assert few.depths.tolist() == [10, 15]
    with pytest.raises(ValueError, match="'tank'.*no classes of the data set"):
        boxes2d_of_record(record, ("tank",))
