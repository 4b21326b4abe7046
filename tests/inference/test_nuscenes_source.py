"""A data set in the nuScenes format as moments; a folder of the same frames gives the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from hand_made_nuscenes import VERSION, Layout, write_tables

from streampetr_vit.data.frame_geometry import FrameGeometry
from streampetr_vit.data.nuscenes.catalog import load_split
from streampetr_vit.errors import InputError
from streampetr_vit.inference.sources.folder import FolderSource
from streampetr_vit.inference.sources.nuscenes import NuScenesSource
from streampetr_vit.structures import Moment


def write_folder(folder: Path, root: Path, scene: str) -> None:
    """A drive of a scene's key frames, as someone would write it from nuScenes' tables."""
    tables = {
        name: {
            row["token"]: row for row in json.loads((root / f"v1.0-mini/{name}.json").read_text())
        }
        for name in ("scene", "sample", "sample_data", "ego_pose", "calibrated_sensor", "sensor")
    }
    rig, frames = {}, {}
    for data in tables["sample_data"].values():
        calibration = tables["calibrated_sensor"][data["calibrated_sensor_token"]]
        name = tables["sensor"][calibration["sensor_token"]]["channel"]
        of_scene = tables["scene"][tables["sample"][data["sample_token"]]["scene_token"]]["name"]
        if of_scene != scene or not name.startswith(("CAM", "LIDAR_TOP")):
            continue
        to_vehicle = {key: calibration[key] for key in ("translation", "rotation")}
        ego = tables["ego_pose"][data["ego_pose_token"]]
        ego = {key: ego[key] for key in ("translation", "rotation")}
        frame = frames.setdefault(data["sample_token"], {"pictures": {}, "poses": {}})
        if name == "LIDAR_TOP":
            frame["vehicle_to_world"], reference = ego, to_vehicle
            continue
        frame["pictures"][name], frame["poses"][name] = data["filename"], ego
        rig[name] = {
            "width": data["width"],
            "height": data["height"],
            "intrinsics": calibration["camera_intrinsic"],
            "camera_to_vehicle": to_vehicle,
        }
    folder.mkdir()
    (folder / "samples").symlink_to(root / "samples")
    values = {"cameras": rig, "reference_to_vehicle": reference}
    (folder / "rig.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    samples = sorted(frames, key=lambda token: tables["sample"][token]["timestamp"])
    lines = [
        {
            "timestamp_s": tables["sample"][token]["timestamp"] / 1e6,
            "vehicle_to_world": frames[token]["vehicle_to_world"],
            "frame": token,
            "scene": scene,
            "pictures": frames[token]["pictures"],
            "camera_vehicle_to_world": frames[token]["poses"],
        }
        for token in samples
    ]
    (folder / "frames.jsonl").write_text("\n".join(map(json.dumps, lines)))


def cameras_to_world(moment: Moment) -> dict[str, np.ndarray]:
    """Where each camera was when it took its picture."""
    return {
        camera.name: moment.camera_vehicle_to_world.get(
            camera.name, moment.vehicle_to_world
        ).matrix()
        @ camera.camera_to_vehicle.matrix()
        for camera in moment.rig.cameras
    }


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("index", [0, 1])  # each has a rig of its own
def test_a_folder_of_the_same_frames_gives_the_same_moments(
    tiny_nuscenes: Path, tmp_path: Path, index: int
) -> None:
    records = load_split(tiny_nuscenes, "v1.0-mini")
    source = NuScenesSource(records)
    scene, count = source.scenes[index]
    write_folder(tmp_path / "drive", records.root, scene)
    folder = FolderSource(tmp_path / "drive")
    assert folder.scenes == [(scene, count)] and count == 6
    assert folder.frames_per_second(scene) == source.frames_per_second(scene)
    moments, others = list(source.frames(scene)), list(folder.frames(scene))
    for moment, other in zip(moments, others, strict=True):
        assert (moment.scene, moment.name) == (other.scene, other.name)
        assert moment.timestamp_s == other.timestamp_s
        close(moment.vehicle_to_world.matrix(), other.vehicle_to_world.matrix())
        references = [m.rig.reference_to_vehicle.matrix() for m in (moment, other)]
        close(*references)
        places, same_places = cameras_to_world(moment), cameras_to_world(other)
        for name in records.spec.cameras:
            camera, same = moment.rig.camera(name), other.rig.camera(name)
            assert moment.pictures[name].samefile(other.pictures[name])
            assert (camera.width, camera.height) == (same.width, same.height)
            close(camera.intrinsics, same.intrinsics)
            close(places[name], same_places[name])


def test_the_motion_of_the_car_is_in_the_poses_of_the_cameras(tmp_path: Path) -> None:
    layout = Layout(camera_delay_s={"CAM_FRONT": 0.05, "CAM_BACK": -0.03})
    write_tables(tmp_path, frames=2, layout=layout)
    records = load_split(tmp_path, VERSION, ["scene-0012"])
    source = NuScenesSource(records)
    for index, moment in enumerate(source.frames("scene-0012")):
        geometry = FrameGeometry.of_record(records[index])
        reference = np.linalg.inv(moment.rig.reference_to_vehicle.matrix())
        for camera, lidar_to_camera in zip(
            moment.rig.cameras, geometry.lidar_to_camera, strict=True
        ):
            camera_to_lidar = reference @ camera.camera_to_vehicle.matrix()
            np.testing.assert_allclose(
                np.linalg.inv(camera_to_lidar), lidar_to_camera.double(), atol=1e-6
            )
        places = {c.name: c.camera_to_vehicle.translation_m[0] for c in moment.rig.cameras}
        assert places["CAM_FRONT"] == pytest.approx(places["CAM_FRONT_LEFT"] + 0.15)  # 3 m/s
        assert places["CAM_BACK"] == pytest.approx(places["CAM_FRONT_LEFT"] - 0.09)


def test_scenes_of_one_name_have_their_tokens(tmp_path: Path) -> None:
    write_tables(tmp_path, ["a", "b", "c"], frames=2)
    table = tmp_path / VERSION / "scene.json"
    scenes = json.loads(table.read_text())
    scenes[0]["name"] = scenes[2]["name"] = "twice"
    table.write_text(json.dumps(scenes))
    source = NuScenesSource(load_split(tmp_path, VERSION))
    assert {name for name, _ in source.scenes} == {"twice a", "twice c", "b"}
    assert [moment.name for moment in source.frames("twice c")] == ["c-0", "c-1"]
    assert [moment.scene for moment in source.frames("twice c", 1)] == ["twice c"]
    with pytest.raises(
        InputError, match="scene 'twice' is unknown; there are twice [ac], twice [ac], b"
    ):
        source.frames("twice")
