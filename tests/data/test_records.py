"""Records against closed forms on tables small enough to check by hand."""

from __future__ import annotations

import pickle
from pathlib import Path

import handmade_tables
import numpy as np
import pytest
from nuscenes.utils.data_classes import Box
from pyquaternion import Quaternion

from streampetr_vit.data.nuscenes.build_records import load_records
from streampetr_vit.data.nuscenes.records import FrameRecord, FrameRecords
from streampetr_vit.data.nuscenes.spec import NUSCENES

TABLES = handmade_tables.make_tables()


def _matrix(row: dict) -> np.ndarray:
    matrix = Quaternion(row["rotation"]).transformation_matrix
    matrix[:3, 3] = row["translation"]
    return matrix


def _sensor_row(record: FrameRecord, channel: str) -> dict:
    rows = TABLES["sample_data"]
    return handmade_tables.row_by_token(rows, f"{record.token}-{channel}-True")


def _poses(row: dict) -> tuple[dict, dict]:
    """Calibration and ego pose of a sensor record."""
    calibration, pose = row["calibrated_sensor_token"], row["ego_pose_token"]
    return (
        handmade_tables.row_by_token(TABLES["calibrated_sensor"], calibration),
        handmade_tables.row_by_token(TABLES["ego_pose"], pose),
    )


def test_order_is_that_of_time_and_scenes_are_adjacent(handmade_records: FrameRecords) -> None:
    assert handmade_records.scene_names == list(handmade_tables.SCENES)
    assert handmade_records.scene_lengths == tuple(handmade_tables.SCENES.values())
    assert handmade_records.tokens == [
        f"{name}-{frame}" for name, n in handmade_tables.SCENES.items() for frame in range(n)
    ]
    assert (np.diff(handmade_records.timestamps_us) > 0).all()
    assert [record.token for record in handmade_records] == handmade_records.tokens
    assert handmade_records[-1].token == handmade_records.tokens[-1]
    with pytest.raises(IndexError):
        handmade_records[len(handmade_records)]


def test_overlapping_recordings_stay_contiguous(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    shift = 60_000_000 - 700_000  # the second scene begins between two frames of the first
    for row in tables["sample"]:
        if row["token"].startswith("scene-0103"):
            row["timestamp"] -= shift
    records = load_records(handmade_tables.write_tables(tables, tmp_path), "v1.0-mini")
    assert records.scene_names == list(handmade_tables.SCENES)
    names = [record.scene_name for record in records]
    assert names == sorted(names)


def test_poses_and_names_are_those_of_the_tables(handmade_records: FrameRecords) -> None:
    for record in handmade_records:
        calibration, pose = _poses(_sensor_row(record, "LIDAR_TOP"))
        np.testing.assert_array_equal(record.lidar_to_ego.translation_m, calibration["translation"])
        np.testing.assert_allclose(record.lidar_to_ego.matrix(), _matrix(calibration), atol=1e-14)
        np.testing.assert_allclose(record.ego_to_global.matrix(), _matrix(pose), atol=1e-12)
        assert record.scene_token == f"{record.scene_name}-token"
        assert record.has_annotations


def test_cameras_have_ego_motion_compensated(handmade_records: FrameRecords) -> None:
    for record in handmade_records:
        lidar, ego_at_lidar_time = _poses(_sensor_row(record, "LIDAR_TOP"))
        to_global = _matrix(ego_at_lidar_time) @ _matrix(lidar)
        for slot, channel in enumerate(NUSCENES.cameras):
            row = _sensor_row(record, channel)
            camera, ego_at_camera_time = _poses(row)
            expected = np.linalg.inv(to_global) @ _matrix(ego_at_camera_time) @ _matrix(camera)
            np.testing.assert_allclose(record.camera_to_lidar[slot], expected, atol=1e-10)
            np.testing.assert_array_equal(
                record.camera_intrinsics[slot], camera["camera_intrinsic"]
            )
            assert record.camera_paths[slot] == row["filename"]
            assert record.camera_timestamps_us[slot] == row["timestamp"]
            assert record.image_sizes[slot].tolist() == [row["width"], row["height"]]


def test_boxes_equal_the_devkits(handmade_records: FrameRecords) -> None:
    for record in handmade_records:
        rows = [r for r in TABLES["sample_annotation"] if r["sample_token"] == record.token]
        assert len(rows) == len(record.gt_boxes)
        lidar, ego = _poses(_sensor_row(record, "LIDAR_TOP"))
        assert record.gt_rotation.shape == (len(rows), 4)
        columns = (record.gt_boxes, record.gt_rotation, record.gt_labels)
        for row, box, rotation, label in zip(rows, *columns, strict=True):
            moved = Box(row["translation"], row["size"], Quaternion(row["rotation"]))
            for pose in (ego, lidar):
                moved.translate(-np.array(pose["translation"]))
                moved.rotate(Quaternion(pose["rotation"]).inverse)
            np.testing.assert_allclose(box[:3], moved.center, atol=1e-10)
            np.testing.assert_array_equal(box[3:6], moved.wlh[[1, 0, 2]])
            np.testing.assert_allclose(
                Quaternion(rotation).rotation_matrix, moved.rotation_matrix, atol=1e-12
            )
            assert np.linalg.norm(rotation) == pytest.approx(1, abs=1e-14)
            assert box[6] == pytest.approx(moved.orientation.yaw_pitch_roll[0], abs=1e-12)
            name = row["instance_token"]
            expected = {"car": "car", "walker": "pedestrian", "cone": "traffic_cone"}.get(
                name.split("-")[-1], "truck" if "truck" in name else "bus"
            )
            assert label == (-1 if "dog" in name else NUSCENES.class_names.index(expected))


def _velocity_of(record: FrameRecord, track: str) -> np.ndarray:
    """Global (vx, vy) of a track in a record."""
    rows = [r for r in TABLES["sample_annotation"] if r["sample_token"] == record.token]
    place = [row["instance_token"].endswith(track) for row in rows].index(True)
    rotation = (record.ego_to_global.rotation() * record.lidar_to_ego.rotation()).as_matrix()
    stored = record.gt_boxes[place, 7:9]
    if np.isnan(stored).any():
        assert np.isnan(stored).all()
        return stored
    # The record holds two components of R^T (vx, vy, 0): two equations for vx and vy.
    return np.linalg.solve(rotation.T[:2, :2], stored)


def _center(track: str, frame: int) -> np.ndarray:
    row = handmade_tables.row_by_token(TABLES["sample_annotation"], f"scene-0061-{track}-{frame}")
    return np.array(row["translation"][:2])


@pytest.mark.parametrize(
    ("track", "frame", "first", "last"),
    [
        ("car", 0, 0, 1),  # no previous box: one-sided
        ("car", 2, 1, 3),  # both neighbours: central, 1 s
        ("car", 4, 3, 4),  # no next box
        ("walker", 1, 0, 1),
        ("truck_gap", 0, 0, 3),  # 1.5 s to the only neighbour is still allowed
    ],
)
def test_velocity(
    handmade_records: FrameRecords, track: str, frame: int, first: int, last: int
) -> None:
    seconds = 0.5 * (last - first)
    expected = (_center(track, last) - _center(track, first)) / seconds
    np.testing.assert_allclose(_velocity_of(handmade_records[frame], track), expected, atol=1e-9)


def test_velocity_of_a_lone_box_is_undefined(handmade_records: FrameRecords) -> None:
    assert np.isnan(_velocity_of(handmade_records[1], "cone")).all()


@pytest.mark.parametrize(("neighbours", "limit_s"), [(1, 1.5), (2, 3.0)])
def test_velocity_is_undefined_over_long_gaps(
    tmp_path: Path, neighbours: int, limit_s: float
) -> None:
    """One microsecond beyond the limit: no velocity; at the limit: a velocity."""
    for extra_us in (0, 1):
        tables = handmade_tables.make_tables()
        frames = neighbours + 1
        tables["sample_annotation"] = []
        tables["instance"] = []
        handmade_tables._add_track(
            tables, "scene-0061", "car", "vehicle.car", [0, 1, 2][:frames], np.random.default_rng(0)
        )
        samples = [r for r in tables["sample"] if r["scene_token"] == "scene-0061-token"]
        for frame, row in enumerate(samples):
            row["timestamp"] = samples[0]["timestamp"] + frame * 1_500_000
            if frame == frames - 1:
                row["timestamp"] += extra_us
            elif frame >= frames:
                row["timestamp"] += 10
        root = handmade_tables.write_tables(tables, tmp_path / f"{neighbours}-{extra_us}")
        record = load_records(root, "v1.0-mini")[neighbours - 1]
        assert limit_s == 1.5 * neighbours
        assert np.isnan(record.gt_boxes[0, 7:]).all() == (extra_us == 1)


def test_points_and_instances(handmade_records: FrameRecords) -> None:
    record = handmade_records[2]
    rows = [r for r in TABLES["sample_annotation"] if r["sample_token"] == record.token]
    assert record.num_lidar_pts.tolist() == [row["num_lidar_pts"] for row in rows]
    assert record.num_radar_pts.tolist() == [0] * len(rows)
    later = handmade_records[3]
    assert set(record.instance) & set(later.instance)
    assert len(set(record.instance.tolist())) == len(rows)


def test_scene_selection(handmade_records: FrameRecords) -> None:
    chosen = handmade_records.select_scenes(["scene-0103"])
    assert chosen.tokens == [f"scene-0103-{frame}" for frame in range(4)]
    assert chosen[0].token == "scene-0103-0"
    both = handmade_records.select_scenes(["scene-0103", "scene-0061"])
    assert both.tokens == handmade_records.tokens
    with pytest.raises(ValueError, match="scene-9999.*scene-0103"):
        chosen.select_scenes(["scene-9999"])


def test_counts_per_class(handmade_records: FrameRecords) -> None:
    labels = np.concatenate([record.gt_labels for record in handmade_records])
    counts = handmade_records.boxes_per_class()
    assert counts.sum() == len(labels)
    assert counts[-1] == (labels == -1).sum()
    assert counts[NUSCENES.class_names.index("car")] == (labels == 0).sum()


def test_pickle_carries_path_and_spec_only(handmade_records: FrameRecords) -> None:
    data = pickle.dumps(handmade_records.select_scenes(["scene-0103"]))
    assert len(data) - len(pickle.dumps(NUSCENES)) < 1000
    copy = pickle.loads(data)
    assert copy.tokens == [f"scene-0103-{frame}" for frame in range(4)]
    np.testing.assert_array_equal(copy[1].gt_boxes, handmade_records[6].gt_boxes)


def test_a_set_without_annotations(tmp_path: Path) -> None:
    tables = handmade_tables.make_tables()
    for name in ("sample_annotation", "instance"):
        del tables[name]
    handmade_tables.write_tables(tables, tmp_path, "v1.0-test")
    records = load_records(tmp_path, "v1.0-test")
    assert not records.has_annotations
    assert records[0].gt_boxes.shape == (0, 9) and records[0].gt_rotation.shape == (0, 4)
    assert not records[0].has_annotations
