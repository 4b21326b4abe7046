"""A data set that is not like nuScenes: four cameras, own names and splits, no lidar."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.utils.geometry_utils import BoxVisibility
from nuscenes.utils.splits import get_scenes_of_custom_split

from synthetic_nuscenes import CameraSpec, ConfigError, FolderTakenError, SyntheticConfig, generate

WIDE, NARROW = (240, 128), (160, 120)
RIG = (
    CameraSpec("front", 0.0, 100.0, WIDE, (1.7, 0.0, 1.5)),
    CameraSpec("left", 90.0, 90.0, NARROW, delay_ms=12),
    CameraSpec("rear", 180.0, 100.0, WIDE, (0.0, 0.0, 1.6), delay_ms=-8),
    CameraSpec("right", -90.0, 90.0, NARROW),
)
NAMES = {
    "vehicle.car": "my.vehicle",
    "vehicle.truck": "my.vehicle",
    "human.pedestrian.adult": "my.person",
}
MINE = SyntheticConfig(
    2, 1, 4, cameras=RIG, category_names=NAMES, lidar=False, own_version="v1.0-mine"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generate(MINE, tmp_path_factory.mktemp("mine"), workers=1)


@pytest.fixture(scope="module")
def nusc(root: Path) -> NuScenes:
    return NuScenes("v1.0-mine", str(root), verbose=False)


def test_every_sample_has_a_key_frame_of_each_camera(nusc: NuScenes) -> None:
    assert len(nusc.sample) == 3 * 4
    for sample in nusc.sample:
        assert list(sample["data"]) == [spec.name for spec in RIG]
        for spec in RIG:
            record = nusc.get("sample_data", sample["data"][spec.name])
            assert record["timestamp"] - sample["timestamp"] == 1000 * spec.delay_ms
            assert (record["width"], record["height"]) == spec.size_px
            picture = cv2.imread(nusc.get_sample_data_path(record["token"]))
            assert picture.shape == (spec.size_px[1], spec.size_px[0], 3)


def test_calibrations_are_those_of_the_rig(nusc: NuScenes) -> None:
    for row in nusc.calibrated_sensor:
        spec = next(s for s in RIG if s.name == nusc.get("sensor", row["sensor_token"])["channel"])
        assert row["translation"] == list(spec.position_m)
        intrinsic, width = np.array(row["camera_intrinsic"]), spec.size_px[0]
        fov_deg = 2 * np.degrees(np.arctan(width / 2 / intrinsic[0, 0]))
        assert abs(fov_deg - spec.fov_deg) < 0.7  # a focal length that differs by 1 %
        assert intrinsic[0, 2] == (width - 1) / 2
    assert len({tuple(row["rotation"]) for row in nusc.calibrated_sensor}) == 3 * 4


def test_there_is_no_lidar_anywhere(root: Path, nusc: NuScenes) -> None:
    assert [row["channel"] for row in nusc.sensor] == [spec.name for spec in RIG]
    assert {row["fileformat"] for row in nusc.sample_data} == {"jpg"}
    assert {path.name for path in (root / "samples").iterdir()} == {spec.name for spec in RIG}
    for path in root.rglob("*.json"):
        assert "LIDAR_TOP" not in path.read_text(), path


def test_point_counts_say_what_a_camera_sees(nusc: NuScenes) -> None:
    seen = [row for row in nusc.sample_annotation if row["num_lidar_pts"]]
    assert len(seen) > 0.9 * len(nusc.sample_annotation) > 100
    for annotation in seen:
        data = nusc.get("sample", annotation["sample_token"])["data"].values()
        token = [annotation["token"]]
        in_view = [nusc.get_sample_data(d, BoxVisibility.ANY, token)[1] for d in data]
        assert any(in_view), annotation
    for instance in nusc.instance:
        for end in ("first_annotation_token", "last_annotation_token"):
            assert nusc.get("sample_annotation", instance[end])["num_lidar_pts"] > 0


def test_categories_have_their_own_names(nusc: NuScenes) -> None:
    names = [row["name"] for row in nusc.category]
    assert len(names) == len(set(names)) == 22  # of 23 two share a name
    assert not set(names) & set(NAMES)
    used = {row["category_name"] for row in nusc.sample_annotation}
    assert {"my.vehicle", "my.person", "vehicle.bicycle"} <= used <= set(names)


def test_splits_are_the_own_ones(root: Path, nusc: NuScenes) -> None:
    train, val = MINE.scene_names()
    assert json.loads((root / "v1.0-mine/splits.json").read_text()) == {"train": train, "val": val}
    assert MINE.split_names == ("train", "val")
    assert [row["name"] for row in nusc.scene] == train + val
    assert (len(train), len(val)) == (2, 1)
    assert get_scenes_of_custom_split("val", nusc) == val


def test_the_folder_is_recognised_and_replaced_whole(tmp_path: Path) -> None:
    mine = dataclasses.replace(MINE, train_scenes=1, frames=2)
    root = generate(mine, tmp_path / "set", workers=1)
    marker = (root / "synthetic.json").stat().st_mtime_ns
    generate(mine, root, workers=1)
    assert (root / "synthetic.json").stat().st_mtime_ns == marker
    usual = SyntheticConfig(1, 1, 2, image_width=64, image_height=36)
    with pytest.raises(FolderTakenError, match="lidar is False, asked for True"):
        generate(usual, root, workers=1)
    generate(usual, root, workers=1, overwrite=True)
    assert not (root / "v1.0-mine").exists() and not (root / "samples/front").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cameras": RIG + RIG[:1]}, "front.*give each its own name"),
        ({"cameras": (CameraSpec("a/b", 0.0, 90.0, WIDE),)}, "camera name 'a/b' is not allowed"),
        ({"cameras": (CameraSpec("LIDAR_TOP", 0.0, 90.0, WIDE),)}, "camera name 'LIDAR_TOP'"),
        ({"cameras": (CameraSpec("a", 0.0, 90.0, (20, 90)),)}, "width of camera 'a' = 20"),
        ({"cameras": (CameraSpec("a", 0.0, 180.0, WIDE),)}, "fov_deg of camera 'a' = 180.0"),
        ({"category_names": {"car": "my.car"}}, r"\['car'\] are not allowed; choose from"),
        ({"lidar_files": True}, "needs lidar = True"),
        ({"own_version": "../other"}, "own_version '../other' is not allowed"),
        ({"own_version": "v1.0-mini"}, "own_version 'v1.0-mini' is not allowed"),
    ],
)
def test_bad_own_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(MINE, **changes)
