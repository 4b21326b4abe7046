"""Table rows of one scene."""

from __future__ import annotations

import numpy as np

from synthetic_nuscenes import tables
from synthetic_nuscenes.annotate import Track
from synthetic_nuscenes.categories import KIND_NAMES, attribute_of
from synthetic_nuscenes.rig import LIDAR_CHANNEL, Camera, quaternion_from_yaw
from synthetic_nuscenes.scene import Scene
from synthetic_nuscenes.tables import Row

LOCATION = "synthetic-town"
DATE = "2020-09-13"


def data_file(scene: Scene, channel: str, timestamp_us: int) -> str:
    """Path of a picture or a point cloud relative to the data root."""
    ending = "pcd.bin" if channel == LIDAR_CHANNEL else "jpg"
    return f"samples/{channel}/{scene.name}__{channel}__{timestamp_us}.{ending}"


def scene_tables(scene: Scene, visibility: np.ndarray) -> dict[str, list[Row]]:
    """The scene's rows of all tables that differ between scenes.

    Args:
        scene: the scene.
        visibility: (frames, n) visibility tokens "1".."4".
    """
    data, poses = _sensor_rows(scene)
    instances, annotations = [], []
    boxes = np.stack([scene.world.boxes(float(t)) for t in scene.times_s])  # (frames, n, 7)
    for number, track in enumerate(scene.tracks):
        seen_as = visibility[:, track.actor].tolist()
        rows = _annotation_rows(scene, number, track, boxes[:, track.actor], seen_as)
        annotations += rows
        instances.append(_instance_row(scene, number, track, rows))
    return {
        "log": [_log_row(scene)],
        "map": [_map_row(scene)],
        "scene": [_scene_row(scene)],
        "sample": _sample_rows(scene),
        "calibrated_sensor": _calibration_rows(scene),
        "ego_pose": poses,
        "sample_data": data,
        "instance": instances,
        "sample_annotation": annotations,
    }


def _log_row(scene: Scene) -> Row:
    return {
        "token": scene.token("log"),
        "logfile": f"synthetic-{scene.name}",
        "vehicle": "synthetic",
        "date_captured": DATE,
        "location": LOCATION,
    }


def _map_row(scene: Scene) -> Row:
    return {
        "token": scene.token("map"),
        "category": "semantic_prior",
        "filename": f"maps/{scene.name}.png",
        "log_tokens": [scene.token("log")],
    }


def _scene_row(scene: Scene) -> Row:
    return {
        "token": scene.token("scene"),
        "log_token": scene.token("log"),
        "nbr_samples": scene.config.frames,
        "first_sample_token": scene.token("sample", 0),
        "last_sample_token": scene.token("sample", scene.config.frames - 1),
        "name": scene.name,
        "description": "Synthetic: boxes on a road.",
    }


def _sample_rows(scene: Scene) -> list[Row]:
    rows = [
        {
            "token": scene.token("sample", frame),
            "timestamp": scene.timestamp_us(frame),
            "scene_token": scene.token("scene"),
        }
        for frame in range(scene.config.frames)
    ]
    return tables.link(rows)


def _calibration_rows(scene: Scene) -> list[Row]:
    rows = [
        tables.calibration_row(
            scene.token("calibrated_sensor", camera.name),
            camera.name,
            camera.translation_m,
            camera.rotation_wxyz,
            camera.intrinsic,
        )
        for camera in scene.cameras
    ]
    if scene.config.lidar:
        token = scene.token("calibrated_sensor", LIDAR_CHANNEL)
        rows.append(tables.lidar_calibration_row(token))
    return rows


def _sensor_rows(scene: Scene) -> tuple[list[Row], list[Row]]:
    """Rows of sample_data and ego_pose."""
    data, poses = [], []
    cameras = {camera.name: camera for camera in scene.cameras}
    for channel in scene.config.channels:
        camera = cameras.get(channel)  # None is the lidar
        rows = [_sample_data_row(scene, f, channel, camera) for f in range(scene.config.frames)]
        data += tables.link(rows)
        # Every exposure has the car's pose at its own time.
        delay_s = camera.delay_us / 1e6 if camera else 0.0
        for frame, row in enumerate(rows):
            xy, yaw = scene.world.ego_pose(float(scene.times_s[frame]) + delay_s)
            poses.append(tables.pose_row(row["token"], row["timestamp"], xy, yaw))
    return data, poses


def _sample_data_row(scene: Scene, frame: int, channel: str, camera: Camera | None) -> Row:
    timestamp_us = scene.timestamp_us(frame) + (camera.delay_us if camera else 0)
    width, height = camera.size_px if camera else (0, 0)
    token = scene.token("sample_data", channel, frame)  # the pose's too: there is one of each
    return {
        "token": token,
        "sample_token": scene.token("sample", frame),
        "ego_pose_token": token,
        "calibrated_sensor_token": scene.token("calibrated_sensor", channel),
        "timestamp": timestamp_us,
        "fileformat": "jpg" if camera else "pcd",
        "is_key_frame": True,
        "height": height,
        "width": width,
        "filename": data_file(scene, channel, timestamp_us),
    }


def _annotation_rows(
    scene: Scene, number: int, track: Track, boxes: np.ndarray, visibility: list[str]
) -> list[Row]:
    """Rows of sample_annotation of one track; boxes (frames, 7), visibility per frame."""
    kind = KIND_NAMES[scene.world.actors.kind[track.actor]]
    attribute = attribute_of(kind, float(scene.world.speeds()[track.actor]))
    attribute_tokens = [tables.token("attribute", attribute)] if attribute else []
    rows = []
    for frame in range(track.first, track.last + 1):
        x, y, z, length, width, height, yaw = boxes[frame].tolist()
        rows.append(
            {
                "token": scene.token("annotation", number, frame),
                "sample_token": scene.token("sample", frame),
                "instance_token": scene.token("instance", number),
                "visibility_token": visibility[frame],
                "attribute_tokens": attribute_tokens,
                "translation": tables.metres((x, y, z)),
                "size": tables.metres((width, length, height)),  # nuScenes's order
                "rotation": tables.quaternion(quaternion_from_yaw(yaw)),
                "num_lidar_pts": int(scene.counts[frame, track.actor]),
                "num_radar_pts": 0,
            }
        )
    return tables.link(rows)


def _instance_row(scene: Scene, number: int, track: Track, annotations: list[Row]) -> Row:
    category = scene.config.category_name(scene.world.actors.category[track.actor])
    return {
        "token": scene.token("instance", number),
        "category_token": tables.token("category", category),
        "nbr_annotations": len(annotations),
        "first_annotation_token": annotations[0]["token"],
        "last_annotation_token": annotations[-1]["token"],
    }
