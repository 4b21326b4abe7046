"""The tables of the synthetic set, read by the nuScenes devkit itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from nuscenes import NuScenes
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.common.loaders import (
    add_center_dist,
    filter_eval_boxes,
    load_gt_of_sample_tokens,
)
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.constants import DETECTION_NAMES
from nuscenes.eval.detection.data_classes import DetectionBox
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.splits import get_scenes_of_split

from synthetic_nuscenes import PRESETS, annotate, tables
from synthetic_nuscenes.scene import Scene, build_scene
from synthetic_nuscenes.scene_tables import scene_tables

CONFIG = config_factory("detection_cvpr_2019")
SPLITS = ("mini_train", "mini_val", "synth_train", "synth_val")


@pytest.fixture(scope="module")
def nusc(tiny_nuscenes: Path) -> NuScenes:
    return NuScenes("v1.0-mini", str(tiny_nuscenes), verbose=False)


@pytest.fixture(scope="module")
def scenes(nusc: NuScenes) -> dict[str, Scene]:
    """The scenes that the tables were made from, drawn again."""
    train, val = PRESETS["tiny"].scene_names()
    return {n: build_scene(PRESETS["tiny"], n, i) for i, n in enumerate(train + val)}


def test_all_tables_and_files_are_there(tiny_nuscenes: Path, nusc: NuScenes) -> None:
    for name in tables.TABLE_NAMES:
        assert (tiny_nuscenes / "v1.0-mini" / f"{name}.json").is_file()
    for row in nusc.sample_data:
        path = tiny_nuscenes / row["filename"]
        assert path.is_file() == (row["fileformat"] == "jpg")
        if path.is_file():
            height, width = cv2.imread(str(path)).shape[:2]
            assert (width, height) == (row["width"], row["height"]) == (400, 225)


def test_tokens_are_unique(nusc: NuScenes) -> None:
    for name in tables.TABLE_NAMES:
        rows = [row["token"] for row in nusc.__getattribute__(name)]
        assert len(set(rows)) == len(rows) > 0
        assert name == "visibility" or all(len(token) == 32 for token in rows)


def _follow(rows: dict[str, dict], first: str) -> list[dict]:
    chain, token = [], first
    while token:
        chain.append(rows[token])
        assert len(chain) < 2 or rows[token]["prev"] == chain[-2]["token"]
        token = rows[token]["next"]
    assert chain[0]["prev"] == ""
    return chain


def test_chains_of_samples_and_sensors_close(nusc: NuScenes) -> None:
    samples = {row["token"]: row for row in nusc.sample}
    data = {row["token"]: row for row in nusc.sample_data}
    for scene in nusc.scene:
        chain = _follow(samples, scene["first_sample_token"])
        assert len(chain) == scene["nbr_samples"] == 6
        assert chain[-1]["token"] == scene["last_sample_token"]
        steps = np.diff([row["timestamp"] for row in chain])
        assert (np.abs(steps - 500_000) <= 30_000).all() and len(set(steps)) > 1
        for channel, token in chain[0]["data"].items():
            records = _follow(data, token)
            assert [row["sample_token"] for row in records] == [row["token"] for row in chain]
            assert (np.diff([row["timestamp"] for row in records]) > 0).all()
            assert {row["channel"] for row in records} == {channel}


def test_instances_and_their_annotations_agree(nusc: NuScenes) -> None:
    annotations = {row["token"]: row for row in nusc.sample_annotation}
    seen = 0
    for instance in nusc.instance:
        chain = _follow(annotations, instance["first_annotation_token"])
        assert len(chain) == instance["nbr_annotations"] >= 2
        assert chain[-1]["token"] == instance["last_annotation_token"]
        assert {row["instance_token"] for row in chain} == {instance["token"]}
        times = [nusc.get("sample", row["sample_token"])["timestamp"] for row in chain]
        assert (np.abs(np.diff(times) - 500_000) <= 30_000).all()
        assert chain[0]["num_lidar_pts"] > 0 and chain[-1]["num_lidar_pts"] > 0
        seen += len(chain)
    assert seen == len(nusc.sample_annotation)
    assert all(isinstance(row["num_lidar_pts"], int) for row in nusc.sample_annotation)
    assert {row["visibility_token"] for row in nusc.sample_annotation} == set("1234")


def test_every_camera_has_its_own_ego_pose(nusc: NuScenes, scenes: dict[str, Scene]) -> None:
    for row in nusc.sample_data:
        pose = nusc.get("ego_pose", row["ego_pose_token"])
        assert pose["timestamp"] == row["timestamp"]
        sample = nusc.get("sample", row["sample_token"])
        scene = scenes[nusc.get("scene", sample["scene_token"])["name"]]
        time = (row["timestamp"] - scene.timestamp_us(0)) / 1e6 + scene.times_s[0]
        np.testing.assert_allclose(
            pose["translation"][:2], scene.world.ego_pose(time)[0], atol=1e-4
        )
        delay_us = row["timestamp"] - sample["timestamp"]
        assert (delay_us == 0) == (row["channel"] == "LIDAR_TOP")
    calibrations = [row["rotation"] for row in nusc.calibrated_sensor if row["camera_intrinsic"]]
    assert len(np.unique(calibrations, axis=0)) == 12  # the two scenes differ


def test_velocities_are_exact_and_never_missing(nusc: NuScenes, scenes: dict[str, Scene]) -> None:
    checked = 0
    for name, scene in scenes.items():
        for number, track in enumerate(scene.tracks):
            for frame in range(track.first, track.last + 1):
                token = scene.token("annotation", number, frame)
                velocity = nusc.box_velocity(token)[:2]
                assert np.isfinite(velocity).all(), (name, number, frame)
                if track.first < frame < track.last:
                    exact = scene.world.velocities(float(scene.times_s[frame]))[track.actor]
                    # Central differences cut corners of arcs, and of uneven time steps.
                    slack = 0.01 * np.linalg.norm(exact) + 1e-3
                    assert np.linalg.norm(velocity - exact) <= slack
                    checked += np.linalg.norm(exact) > 0
    assert checked > 50


def _ground_truth(nusc: NuScenes, split: str) -> EvalBoxes:
    """All boxes of the detection classes in a split, as the devkit loads them."""
    names = set(get_scenes_of_split(split, nusc))
    tokens = [
        sample["token"]
        for sample in nusc.sample
        if nusc.get("scene", sample["scene_token"])["name"] in names
    ]
    boxes = load_gt_of_sample_tokens(nusc, tokens, DetectionBox, verbose=False)
    add_center_dist(nusc, boxes)
    return boxes


@pytest.mark.parametrize("split", SPLITS)
def test_all_classes_are_in_every_split(nusc: NuScenes, split: str) -> None:
    boxes = filter_eval_boxes(nusc, _ground_truth(nusc, split), CONFIG.class_range)
    names = [box.detection_name for box in boxes.all]
    assert min(names.count(name) for name in DETECTION_NAMES) >= 4
    assert len(names) >= 6 * 10
    farthest = max(np.linalg.norm(box.ego_translation[:2]) for box in boxes.all)
    assert 20.0 < farthest < 26.0  # the lidar, whose range is 25 m, sits 0.94 m before the ego


def test_sizes_of_the_splits_of_the_quickstart() -> None:
    """At least 60 boxes a class in four validation scenes: else a class's AP is a lottery."""
    config = PRESETS["quickstart"]
    total = np.zeros(10, dtype=int)
    for index in range(config.train_scenes, config.train_scenes + config.val_scenes):
        scene = build_scene(config, "scene", index)
        total += annotate.boxes_per_kind(scene.world, scene.counts, scene.tracks)[:10]
    assert total.min() >= 60
    assert 10 * 80 < total.sum() < 30 * 80


def _as_prediction(box: DetectionBox) -> dict:
    return {
        "sample_token": box.sample_token,
        "translation": list(box.translation),
        "size": list(box.size),
        "rotation": list(box.rotation),
        "velocity": [float(v) for v in box.velocity],
        "detection_name": box.detection_name,
        "detection_score": 1.0,
        "attribute_name": box.attribute_name,
    }


@pytest.mark.parametrize("split", SPLITS)
def test_ground_truth_as_prediction_is_perfect(nusc: NuScenes, tmp_path: Path, split: str) -> None:
    boxes = _ground_truth(nusc, split)
    results = {
        token: [_as_prediction(box) for box in boxes[token] if box.num_pts > 0]
        for token in boxes.sample_tokens
    }
    flags = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"meta": dict.fromkeys(flags, False), "results": results}))
    evaluation = DetectionEval(nusc, CONFIG, str(path), split, str(tmp_path), verbose=False)
    metrics = evaluation.evaluate()[0].serialize()
    assert abs(metrics["mean_ap"] - 1.0) < 1e-9
    assert abs(metrics["nd_score"] - 1.0) < 1e-9
    assert max(metrics["tp_errors"].values()) < 1e-9


def _scene_with_rack() -> Scene:
    """A scene of the tiny set's configuration whose rack and bicycles are annotated."""
    config = dataclasses.replace(PRESETS["tiny"], seed=5)
    for index in range(40):
        scene = build_scene(config, "scene-0103", index)
        if sum(scene.world.actors.rack[track.actor] >= 0 for track in scene.tracks) == 3:
            return scene
    raise AssertionError("none of 40 scenes has a visible bicycle rack")


def test_bicycles_in_a_rack_are_dropped_by_the_evaluation(tmp_path: Path) -> None:
    scene = _scene_with_rack()
    visibility = np.full(scene.counts.shape, "4")
    rows = {**tables.static_tables(), **scene_tables(scene, visibility)}
    tables.write_tables(tmp_path / "v1.0-mini", rows)
    (tmp_path / "maps").mkdir()
    (tmp_path / rows["map"][0]["filename"]).touch()
    nusc = NuScenes("v1.0-mini", str(tmp_path), verbose=False)
    boxes = _ground_truth(nusc, "mini_val")
    before = sum(box.detection_name == "bicycle" and box.num_pts > 0 for box in boxes.all)
    boxes = filter_eval_boxes(nusc, boxes, CONFIG.class_range)
    after = sum(box.detection_name == "bicycle" for box in boxes.all)
    held = [t.actor for t in scene.tracks if scene.world.actors.rack[t.actor] >= 0]
    assert before - after == (scene.counts[:, held] > 0).sum() > 0
    kinds = annotate.boxes_per_kind(scene.world, scene.counts, scene.tracks)
    assert after == kinds[7]


def test_map_mask_shows_the_road(nusc: NuScenes, scenes: dict[str, Scene]) -> None:
    for name, scene in scenes.items():
        row = next(r for r in nusc.map if r["filename"] == f"maps/{name}.png")
        mask = row["mask"]
        for frame in range(6):
            xy, yaw = scene.world.ego_pose(float(scene.times_s[frame]))
            left = np.array([-np.sin(yaw), np.cos(yaw)])
            points = xy + np.array([[0.0], [9.0], [-9.0], [10.2], [-10.2]]) * left
            on_road = mask.is_on_mask(points[:, 0], points[:, 1]).tolist()
            assert on_road == [True, True, True, False, False]
            column, row_px = mask.to_pixel_coords(*xy)
            height, width = mask.mask().shape
            # The devkit cuts a square of +-57 m around the car from the mask.
            assert 570 < column < width - 570 and 570 < row_px < height - 570
